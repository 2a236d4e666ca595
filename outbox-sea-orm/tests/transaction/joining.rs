//! Methods of services that name their outbox and call each other, as people write who come from
//! Spring: one transaction, or a refusal that says what to write.

use crate::shop::{AppError, OrderPlaced, Shop, new_order};
use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use outbox_sea_orm::prelude::*;
use sea_orm::{ActiveModelTrait, DbErr, TransactionTrait};
use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
};

const SOON: Duration = Duration::from_secs(30);

/// The innermost service: saves one row and one event, and fails for what is not positive.
struct Audit {
    outbox: Outbox,
}

impl Audit {
    #[transactional_outbox(tx = self.outbox)]
    async fn note(&self, total: i64) -> Result<(), AppError> {
        let order = new_order(total).insert(tx).await?;
        tx.emit(OrderPlaced::from(&order))?;
        if total <= 0 { Err(AppError::BadTotal) } else { Ok(()) }
    }

    /// Never ends.
    #[transactional_outbox(tx = self.outbox)]
    async fn linger(&self) -> Result<(), AppError> {
        new_order(1).insert(tx).await?;
        pending().await
    }

    #[transactional_outbox(tx = self.outbox, nested)]
    async fn try_note(&self, total: i64) -> Result<(), AppError> {
        self.note(total).await
    }

    #[transactional_outbox(tx = self.outbox, mandatory)]
    async fn note_inside(&self, total: i64) -> Result<(), AppError> {
        self.note(total).await
    }

    #[transactional_outbox(tx = self.outbox, requires_new)]
    async fn note_apart(&self, total: i64) -> Result<(), AppError> {
        self.note(total).await
    }

    #[transactional_outbox(tx = self.outbox, isolation = Serializable)]
    async fn note_strictly(&self, total: i64) -> Result<(), AppError> {
        self.note(total).await
    }

    #[transactional_outbox(tx = self.outbox, retry = 3)]
    async fn note_again(&self, total: i64) -> Result<(), AppError> {
        self.note(total).await
    }
}

/// What an order needs, behind a trait.
#[async_trait]
trait Stock: Send + Sync {
    async fn reserve(&self, total: i64) -> Result<(), AppError>;
}

struct Shelf {
    outbox: Outbox,
    audit: Arc<Audit>,
}

#[async_trait]
impl Stock for Shelf {
    #[transactional_outbox(tx = self.outbox)]
    async fn reserve(&self, total: i64) -> Result<(), AppError> {
        new_order(total).insert(tx).await?;
        self.audit.note(total).await
    }
}

/// The same, behind a trait without a macro.
trait Ledger {
    async fn enter(&self, total: i64) -> Result<(), AppError>;
}

impl Ledger for Shelf {
    #[transactional_outbox(tx = self.outbox)]
    async fn enter(&self, total: i64) -> Result<(), AppError> {
        new_order(total).insert(tx).await?;
        self.audit.note(total).await
    }
}

impl Shelf {
    /// Calls a service for each item of a stream.
    #[transactional_outbox(tx = self.outbox)]
    async fn enter_all(&self, totals: &[i64]) -> Result<usize, AppError> {
        let noted = stream::iter(totals).then(async |total| self.enter(*total).await);
        let noted: Vec<()> = noted.try_collect().await?;
        tx.emit(OrderPlaced { order_id: 0, total: 0 })?;
        Ok(noted.len())
    }
}

/// The outermost service.
struct Orders {
    outbox: Outbox,
    audit: Arc<Audit>,
    stock: Arc<dyn Stock>,
}

impl Orders {
    fn of(outbox: &Outbox) -> Self {
        let audit = Arc::new(Audit { outbox: outbox.clone() });
        let stock = Arc::new(Shelf { outbox: outbox.clone(), audit: audit.clone() });
        Self { outbox: outbox.clone(), audit, stock }
    }

    /// Places an order, three services deep; the last call decides.
    #[transactional_outbox(tx = self.outbox)]
    async fn place(&self, last: i64) -> Result<(), AppError> {
        new_order(1).insert(tx).await?;
        self.audit.note(1).await?;
        self.stock.reserve(2).await?;
        self.bump(last).await
    }

    async fn bump(&self, total: i64) -> Result<(), AppError> {
        self.audit.note(total).await
    }

    #[transactional_outbox(tx = self.outbox)]
    async fn swallow(&self, total: i64) -> Result<(), AppError> {
        new_order(1).insert(tx).await?;
        let _ = self.audit.note(total).await;
        Ok(())
    }

    #[transactional_outbox(tx = self.outbox)]
    async fn forgive(&self, total: i64) -> Result<(), AppError> {
        new_order(1).insert(tx).await?;
        let _ = self.audit.try_note(total).await;
        Ok(())
    }

    #[transactional_outbox(tx = self.outbox)]
    async fn apart(&self, last: i64) -> Result<(), AppError> {
        self.audit.note_apart(1).await?;
        self.audit.note(last).await
    }

    #[transactional_outbox(tx = self.outbox)]
    async fn strictly(&self) -> Result<(), AppError> {
        self.audit.note_strictly(1).await
    }

    #[transactional_outbox(tx = self.outbox)]
    async fn again(&self, total: i64) -> Result<(), AppError> {
        self.audit.note_again(total).await
    }

    /// Gives an inner call up after its first steps.
    #[transactional_outbox(tx = self.outbox)]
    async fn impatient(&self) -> Result<(), AppError> {
        new_order(1).insert(tx).await?;
        let mut call = pin!(self.audit.linger());
        poll_fn(|cx| {
            let _ = call.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
        Ok(())
    }

    #[transactional_outbox(tx = self.outbox)]
    async fn inside(&self, total: i64) -> Result<(), AppError> {
        self.audit.note_inside(total).await
    }
}

fn is<T: std::fmt::Debug>(result: &Result<T, AppError>, expected: impl Fn(&OutboxError) -> bool) {
    assert!(matches!(result, Err(AppError::Outbox(error)) if expected(error)), "{result:?}");
}

on_every_database! {
    async fn methods_that_call_each_other_are_one_transaction(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let orders = Orders::of(&shop.outbox);
        let failed = tokio::time::timeout(SOON, orders.place(0)).await.expect("no call waits for another one");
        assert!(matches!(failed, Err(AppError::BadTotal)), "{failed:?}");
        assert_eq!(shop.saved().await, (0, 0), "what the inner calls did is gone with the outer one");
        orders.place(3).await.unwrap();
        assert_eq!(shop.saved().await, (5, 3));
        // In one closure, and in a function that takes the transaction.
        let twice: Result<(), AppError> = shop.outbox.transaction(async |tx| {
            new_order(1).insert(tx).await?;
            orders.place(3).await?;
            orders.audit.note(0).await
        }).await;
        assert!(matches!(twice, Err(AppError::BadTotal)), "{twice:?}");
        assert_eq!(shop.saved().await, (5, 3));
    }

    async fn methods_of_a_native_trait_and_those_that_a_stream_calls_join(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let outbox = shop.outbox.clone();
        let shelf = Shelf { outbox: outbox.clone(), audit: Arc::new(Audit { outbox }) };
        assert!(matches!(shelf.enter(0).await, Err(AppError::BadTotal)));
        assert!(matches!(shelf.enter_all(&[1, 2, 0, 3]).await, Err(AppError::BadTotal)));
        assert_eq!(shop.saved().await, (0, 0), "what came before is gone with what failed");
        assert_eq!(shelf.enter_all(&[1, 2, 3]).await.unwrap(), 3);
        assert_eq!(shop.saved().await, (6, 4));
        // A stream that is left in the middle leaves nothing behind.
        let left: Result<(), AppError> = shop.outbox.transaction(async |_| {
            let mut noted = pin!(stream::iter([1, 2]).then(async |total| shelf.enter(total).await));
            noted.next().await.expect("one")?;
            Err(AppError::BadTotal)
        }).await;
        assert!(left.is_err());
        assert_eq!(shop.saved().await, (6, 4));
    }

    async fn methods_that_are_joined_concurrently_are_one_transaction(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let orders = Orders::of(&shop.outbox);
        let both = |last| {
            let orders = &orders;
            async move {
                orders.outbox.transaction(async |_| {
                    let (first, second) = tokio::join!(orders.audit.note(1), orders.stock.reserve(last));
                    first.and(second)
                }).await
            }
        };
        assert!(both(0).await.is_err());
        assert_eq!(shop.saved().await, (0, 0));
        both(2).await.unwrap();
        assert_eq!(shop.saved().await, (3, 2));
    }

    async fn a_joined_call_that_is_swallowed_or_dropped_lets_nothing_be_saved(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let orders = Orders::of(&shop.outbox);
        is(&orders.swallow(0).await, |error| matches!(error, OutboxError::RollbackOnly { function: "note" }));
        is(&orders.impatient().await, |error| matches!(error, OutboxError::RollbackOnly { function: "linger" }));
        assert_eq!(shop.saved().await, (0, 0));
        orders.forgive(0).await.unwrap();
        assert_eq!(shop.saved().await, (1, 0), "a savepoint may fail");
        orders.forgive(1).await.unwrap();
        assert_eq!(shop.saved().await, (3, 1));
    }

    async fn a_transaction_that_a_task_opened_itself_is_not_passed_by(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let orders = Orders::of(&shop.outbox);
        let tx = shop.outbox.begin().await.unwrap();
        let refused = orders.place(1).await;
        is(&refused, |error| matches!(error, OutboxError::CannotJoin { function: "place" }));
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("outbox.transaction(async |tx| ..)") && said.contains("requires_new"), "{said}");
        tx.commit().await.unwrap();
        orders.place(1).await.unwrap();
        // SeaORM's own form of a callback finds it.
        let tx = shop.outbox.begin().await.unwrap();
        let orders = Arc::new(orders);
        let inner = orders.clone();
        let result = tx.transaction::<_, (), DbErr>(move |_| Box::pin(async move {
            inner.audit.note(1).await.map_err(|error| DbErr::Custom(error.to_string()))
        }));
        result.await.unwrap();
        tx.rollback().await.unwrap();
        assert_eq!(shop.saved().await, (5, 3));
    }

    async fn a_spawned_task_joins_nothing(db: &TempDatabase) {
        if db.database() == Database::Sqlite {
            // It would wait for the one that waits for it.
            return;
        }
        let shop = Shop::open(db).await;
        let orders = Arc::new(Orders::of(&shop.outbox));
        let spawned = orders.clone();
        let failed: Result<(), AppError> = shop.outbox.transaction(async |tx| {
            new_order(1).insert(tx).await?;
            tokio::spawn(async move { spawned.audit.note(1).await }).await.expect("it ends")?;
            Err(AppError::BadTotal)
        }).await;
        assert!(failed.is_err());
        assert_eq!(shop.saved().await, (1, 1), "the task's own is committed by itself");
    }

    async fn requires_new_commits_apart_or_is_refused(db: &TempDatabase) {
        let shop = Shop::open_with(db, |pool| { pool.max_connections(2); }, |builder| builder).await;
        let orders = Orders::of(&shop.outbox);
        orders.audit.note_apart(1).await.unwrap();
        assert_eq!(shop.saved().await, (1, 1), "alone it opens as others do");
        let result = orders.apart(0).await;
        if db.database() == Database::Sqlite {
            is(&result, |error| matches!(error, OutboxError::SelfDeadlock { function: "note_apart" }));
            assert_eq!(shop.saved().await, (1, 1));
            return;
        }
        assert!(matches!(result, Err(AppError::BadTotal)), "{result:?}");
        assert_eq!(shop.saved().await, (2, 2));
        let hog = shop.db.begin().await.unwrap();
        is(&orders.apart(1).await, |error| matches!(error, OutboxError::NoSecondConnection { function: "note_apart", .. }));
        hog.rollback().await.unwrap();
        orders.apart(1).await.unwrap();
        assert_eq!(shop.saved().await, (4, 4));
    }

    async fn mandatory_isolation_and_retry_hold_for_what_is_found(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let orders = Orders::of(&shop.outbox);
        is(&orders.audit.note_inside(1).await, |error| matches!(error, OutboxError::Mandatory { function: "note_inside" }));
        orders.inside(1).await.unwrap();
        assert_eq!(shop.saved().await, (1, 1));
        match db.database() {
            // There is one isolation.
            Database::Sqlite => orders.strictly().await.unwrap(),
            _ => is(&orders.strictly().await, |error| matches!(error, OutboxError::Isolation { function: "note_strictly", .. })),
        }
        assert!(matches!(orders.again(0).await, Err(AppError::BadTotal)), "the outermost repeats");
    }

    async fn methods_of_another_outbox_join_nothing_of_this_one(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let other = TempDatabase::create(Database::Sqlite).await;
        let elsewhere = Shop::open(&other).await;
        let orders = Orders::of(&elsewhere.outbox);
        let failed: Result<(), AppError> = shop.outbox.transaction(async |tx| {
            new_order(1).insert(tx).await?;
            orders.place(1).await?;
            Err(AppError::BadTotal)
        }).await;
        assert!(failed.is_err());
        assert_eq!((shop.saved().await, elsewhere.saved().await), ((0, 0), (5, 3)));
    }
}
