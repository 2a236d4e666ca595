//! The forms of use, from the plainest on.

use crate::shop::{AppError, OrderNoted, OrderPlaced, Shop, new_order, order, place};
use outbox_core::outbox::{InboxKey, Store};
use outbox_sea_orm::{
    OutboxBuilder, RouteLimits,
    prelude::*,
    transport::{LimitError, Limits, Memory, Route, event_type, topic},
};
use sea_orm::{
    ActiveModelTrait, DatabaseConnection, DatabaseTransaction, DbErr, EntityTrait, TransactionTrait,
};
use std::sync::atomic::{AtomicU32, Ordering};
use tests::{databases::TempDatabase, on_every_database};

#[transactional_outbox]
async fn place_order(tx: &OutboxTransaction, total: i64) -> Result<order::Model, AppError> {
    let order = place(tx, total).await?;
    if total <= 0 {
        return Err(AppError::BadTotal);
    }
    Ok(order)
}

#[transactional_outbox]
async fn place_two(tx: &OutboxTransaction, first: i64, second: i64) -> Result<(), AppError> {
    place_order(tx, first).await?;
    place_order(tx, second).await?;
    Ok(())
}

#[transactional_outbox]
async fn swallow(tx: &OutboxTransaction, total: i64) -> Result<(), AppError> {
    place_order(tx, 1).await?;
    let _ = place_order(tx, total).await;
    Ok(())
}

#[transactional_outbox(nested)]
async fn try_place(tx: &OutboxTransaction, total: i64) -> Result<(), AppError> {
    place_order(tx, total).await?;
    Ok(())
}

#[transactional_outbox]
async fn forgive(tx: &OutboxTransaction, total: i64) -> Result<bool, AppError> {
    place_order(tx, 1).await?;
    Ok(try_place(tx, total).await.is_ok())
}

#[transactional_outbox(mandatory)]
async fn only_inside(tx: &OutboxTransaction, total: i64) -> Result<(), DbErr> {
    new_order(total).insert(tx).await?;
    tx.emit(OrderPlaced { order_id: 1, total })?;
    Ok(())
}

#[transactional_outbox(emit = |order| OrderPlaced::from(order))]
async fn place_and_say(tx: &OutboxTransaction, total: i64) -> anyhow::Result<order::Model> {
    anyhow::ensure!(total > 0, "the total must be positive");
    Ok(new_order(total).insert(tx).await?)
}

struct Orders {
    outbox: Outbox,
}

impl Orders {
    #[transactional_outbox(tx = self.outbox)]
    async fn place(&self, total: i64) -> Result<order::Model, AppError> {
        place_order(tx, total).await
    }

    #[transactional_outbox(outbox = self.outbox, emit = |order| OrderPlaced::from(order))]
    async fn create(
        &self,
        txn: &DatabaseTransaction,
        total: i64,
    ) -> Result<order::Model, AppError> {
        Ok(new_order(total).insert(txn).await?)
    }
}

on_every_database! {
    async fn a_commit_saves_data_and_events(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        let order = place(&tx, 7).await.unwrap();
        let note = String::from("borrowed");
        tx.emit(OrderNoted { order_id: order.id, note: &note }).unwrap();
        assert_eq!(shop.count_in(&tx, "outbox_events").await, 0, "events are written just before the commit");
        tx.commit().await.unwrap();
        assert_eq!(shop.saved().await, (1, 2));
    }

    async fn a_rollback_and_a_drop_save_nothing(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        place(&tx, 7).await.unwrap();
        tx.rollback().await.unwrap();
        let tx = shop.outbox.begin().await.unwrap();
        place(&tx, 7).await.unwrap();
        drop(tx);
        assert_eq!(shop.saved().await, (0, 0));
    }

    async fn a_closure_commits_what_it_answers(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let customer = "lin".to_owned();
        let id = shop.outbox.transaction(async |tx| {
            let mut order = new_order(3);
            order.customer = sea_orm::Set(customer.clone());
            Ok::<_, AppError>(order.insert(tx).await?.id)
        });
        let id = id.await.unwrap();
        let failed: Result<(), AppError> = shop.outbox.transaction(async |tx| {
            place(tx, 4).await?;
            Err(AppError::BadTotal)
        }).await;
        assert!(matches!(failed, Err(AppError::BadTotal)));
        assert_eq!((id, shop.saved().await), (1, (1, 0)));
    }

    async fn the_attribute_opens_one_transaction_for_all_that_join(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        place_order(&shop.outbox, 7).await.unwrap();
        assert!(matches!(place_order(&shop.outbox, 0).await, Err(AppError::BadTotal)));
        assert_eq!(shop.saved().await, (1, 1));
        assert!(matches!(place_two(&shop.outbox, 7, 0).await, Err(AppError::BadTotal)));
        assert_eq!(shop.saved().await, (1, 1));
        place_two(&shop.outbox, 7, 8).await.unwrap();
        assert_eq!(shop.saved().await, (3, 3));
    }

    async fn a_swallowed_error_of_a_joined_function_rolls_back_and_names_it(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let failed = swallow(&shop.outbox, 0).await.unwrap_err();
        assert!(matches!(failed, AppError::Outbox(OutboxError::RollbackOnly { function: "place_order" })), "{failed}");
        assert!(failed.to_string().contains("`place_order` failed"), "{failed}");
        assert_eq!(shop.saved().await, (0, 0));
        swallow(&shop.outbox, 2).await.unwrap();
        assert_eq!(shop.saved().await, (2, 2));
    }

    async fn a_panic_of_a_joined_function_rolls_back_though_it_is_caught(db: &TempDatabase) {
        #[transactional_outbox]
        async fn panics(tx: &OutboxTransaction) -> Result<(), AppError> {
            place(tx, 1).await?;
            panic!("on purpose");
        }
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        let caught = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(panics(&tx))).await;
        assert!(caught.is_err());
        assert!(matches!(tx.commit().await, Err(OutboxError::RollbackOnly { function: "panics" })));
        assert_eq!(shop.saved().await, (0, 0));
    }

    async fn a_panic_of_the_owner_rolls_back(db: &TempDatabase) {
        #[transactional_outbox]
        async fn panics(tx: &OutboxTransaction) -> Result<(), AppError> {
            place(tx, 1).await?;
            panic!("on purpose");
        }
        let shop = Shop::open(db).await;
        let outbox = shop.outbox.clone();
        assert!(tokio::spawn(async move { panics(&outbox).await }).await.is_err());
        assert_eq!(shop.saved().await, (0, 0));
    }

    async fn a_nested_function_that_fails_undoes_itself_alone(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        assert!(!forgive(&shop.outbox, 0).await.unwrap());
        assert_eq!(shop.saved().await, (1, 1));
        assert!(forgive(&shop.outbox, 2).await.unwrap());
        assert_eq!(shop.saved().await, (3, 3));
        try_place(&shop.outbox, 5).await.unwrap();
        assert_eq!(shop.saved().await, (4, 4));
    }

    async fn a_mandatory_function_joins(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        only_inside(&tx, 3).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(shop.saved().await, (1, 1));
    }

    async fn what_a_function_returns_is_emitted(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        place_and_say(&shop.outbox, 3).await.unwrap();
        assert!(place_and_say(&shop.outbox, 0).await.is_err());
        assert_eq!(shop.saved().await, (1, 1));
    }

    async fn a_service_takes_the_transaction_from_its_field(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let orders = Orders { outbox: shop.outbox.clone() };
        orders.place(3).await.unwrap();
        assert!(orders.place(0).await.is_err());
        assert_eq!(shop.saved().await, (1, 1));
    }

    async fn an_ordinary_transaction_saves_events_at_once(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let orders = Orders { outbox: shop.outbox.clone() };
        let txn = shop.db.begin().await.unwrap();
        let order = orders.create(&txn, 3).await.unwrap();
        shop.outbox.enqueue(&txn, &OrderPlaced::from(&order)).await.unwrap();
        let many = [OrderPlaced::from(&order), OrderPlaced::from(&order)];
        assert_eq!(shop.outbox.enqueue_many(&txn, &many).await.unwrap().len(), 2);
        let dynamic: &dyn OutboxEvent = &many[0];
        shop.outbox.enqueue(&txn, dynamic).await.unwrap();
        txn.commit().await.unwrap();
        assert_eq!(shop.saved().await, (1, 5));
        let txn = shop.db.begin().await.unwrap();
        orders.create(&txn, 3).await.unwrap();
        txn.rollback().await.unwrap();
        assert_eq!(shop.saved().await, (1, 5));
    }

    async fn a_commit_with_events_wakes_the_relay_and_one_without_does_not(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let mut wakes = shop.outbox.wake_handle().listen();
        let tx = shop.outbox.begin().await.unwrap();
        new_order(3).insert(&tx).await.unwrap();
        tx.commit().await.unwrap();
        assert!(!wakes.has_changed().unwrap());
        place_order(&shop.outbox, 3).await.unwrap();
        assert!(wakes.has_changed().unwrap());
        wakes.mark_unchanged();
        assert!(place_order(&shop.outbox, 0).await.is_err());
        assert!(!wakes.has_changed().unwrap());
    }

    async fn a_store_s_transaction_is_the_outbox_s(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let key = InboxKey { consumer: "c", handler: "h", source: "s", message_id: MessageId::generate() };
        let receive = async || {
            let tx = Store::begin(&shop.outbox).await.unwrap();
            let first = shop.outbox.receive(&tx, key.clone()).await.unwrap();
            let event = outbox_core::event::NewEvent::encode(&OrderPlaced { order_id: 1, total: 1 }).unwrap();
            shop.outbox.append(&tx, &[event]).await.unwrap();
            Store::commit(&shop.outbox, tx).await.unwrap();
            first
        };
        assert!(receive().await);
        assert!(!receive().await);
        assert_eq!(shop.events().await, 2);
    }

    async fn what_no_route_would_take_is_refused_when_it_is_emitted(db: &TempDatabase) {
        let limits = RouteLimits::default();
        let shop = Shop::open_with(db, |_| (), |builder: OutboxBuilder| builder.limits(limits.clone())).await;
        let tx = shop.outbox.begin().await.unwrap();
        tx.emit(OrderPlaced { order_id: 1, total: 1 }).unwrap();
        limits.set("billing", Limits::default().max_payload(5), |event| event.topic == "orders");
        let refused = tx.emit(OrderPlaced { order_id: 1, total: 1 }).unwrap_err();
        assert!(matches!(&refused, OutboxError::Limit(LimitError::TooLong { route, .. }) if route == "billing"), "{refused}");
        limits.remove("billing");
        tx.emit(OrderPlaced { order_id: 1, total: 1 }).unwrap();
        // Only where all routes are known can it be told that none takes it.
        limits.set("other", Limits::default(), |event| event.topic == "order");
        tx.emit(OrderPlaced { order_id: 1, total: 1 }).unwrap();
        limits.set_all(&[Route::new("all", topic("order"), Memory::channel().0)]);
        let refused = tx.emit(OrderPlaced { order_id: 1, total: 1 }).unwrap_err();
        let no_route = |nearest: &Option<String>| nearest.as_deref() == Some("order");
        assert!(matches!(&refused, OutboxError::Limit(LimitError::NoRoute { nearest, .. }) if no_route(nearest)), "{refused}");
        limits.set_all(&[Route::new("some", event_type("order.placed"), Memory::channel().0)]);
        tx.emit(OrderPlaced { order_id: 1, total: 1 }).unwrap();
        tx.commit().await.unwrap();
        assert_eq!(shop.events().await, 4);
    }

    async fn a_function_that_needs_an_isolation_does_not_join_less(db: &TempDatabase) {
        #[transactional_outbox(isolation = Serializable)]
        async fn strict(tx: &OutboxTransaction) -> Result<(), AppError> {
            place(tx, 1).await?;
            Ok(())
        }
        #[transactional_outbox]
        async fn loose(tx: &OutboxTransaction) -> Result<(), AppError> {
            strict(tx).await
        }
        #[transactional_outbox(isolation = Serializable)]
        async fn outer(tx: &OutboxTransaction) -> Result<(), AppError> {
            strict(tx).await
        }
        let shop = Shop::open(db).await;
        strict(&shop.outbox).await.unwrap();
        outer(&shop.outbox).await.unwrap();
        let one_writer = db.database() == tests::databases::Database::Sqlite;
        match loose(&shop.outbox).await {
            Ok(()) => assert!(one_writer),
            Err(AppError::Outbox(OutboxError::Isolation { function: "strict", .. })) => assert!(!one_writer),
            Err(other) => panic!("{other}"),
        }
    }
}

/// On SQLite one connection writes at a time, so a second transaction would wait for the first for
/// ever.
#[test]
fn a_function_that_requires_a_new_transaction_is_kept_though_the_caller_rolls_back() {
    #[transactional_outbox(requires_new)]
    async fn audit(tx: &OutboxTransaction, total: i64) -> Result<(), AppError> {
        place(tx, total).await?;
        Ok(())
    }
    #[transactional_outbox]
    async fn fails(tx: &OutboxTransaction) -> Result<(), AppError> {
        place(tx, 1).await?;
        audit(tx, 2).await?;
        Err(AppError::BadTotal)
    }
    tests::databases::run_on(tests::databases::Database::Postgres, async |db: &TempDatabase| {
        let shop = Shop::open(db).await;
        assert!(fails(&shop.outbox).await.is_err());
        assert_eq!(shop.saved().await, (1, 1));
    });
}

/// Two transactions that take the same rows in opposite order: one is the deadlock's victim, and is
/// repeated.
async fn crossing(db: &TempDatabase) {
    #[transactional_outbox(retry = 5)]
    async fn cross(
        tx: &OutboxTransaction,
        ids: [i64; 2],
        meet: &tokio::sync::Barrier,
        runs: &AtomicU32,
    ) -> Result<(), DbErr> {
        let first_run = runs.fetch_add(1, Ordering::SeqCst) < 2;
        for id in ids {
            let order = order::ActiveModel {
                id: sea_orm::Set(id),
                total: sea_orm::Set(ids[0]),
                ..Default::default()
            };
            order.update(tx).await?;
            if first_run && id == ids[0] {
                meet.wait().await;
            }
        }
        tx.emit(OrderPlaced { order_id: ids[0], total: 1 })?;
        Ok(())
    }
    let shop = Shop::open(db).await;
    place_two(&shop.outbox, 1, 1).await.unwrap();
    let (meet, runs) = (tokio::sync::Barrier::new(2), AtomicU32::new(0));
    let (a, b) = tokio::join!(
        cross(&shop.outbox, [1, 2], &meet, &runs),
        cross(&shop.outbox, [2, 1], &meet, &runs)
    );
    assert_eq!((a, b), (Ok(()), Ok(())));
    assert!(runs.into_inner() >= 3, "one of them was the victim and ran again");
    assert_eq!(shop.saved().await, (2, 4));
}

#[test]
fn a_deadlock_s_victim_is_repeated_on_postgres() {
    tests::databases::run_on(tests::databases::Database::Postgres, crossing);
}

#[test]
fn a_deadlock_s_victim_is_repeated_on_mariadb() {
    tests::databases::run_on(tests::databases::Database::MariaDb, crossing);
}

struct Reports {
    outbox: Outbox,
}

impl Reports {
    #[transactional_outbox(tx = self.outbox, read_only)]
    async fn orders(&self) -> Result<usize, AppError> {
        Ok(order::Entity::find().all(tx).await?.len())
    }

    #[transactional_outbox(tx = self.outbox, read_only)]
    async fn that_writes(&self) -> Result<(), AppError> {
        new_order(1).insert(tx).await?;
        Ok(())
    }

    #[transactional_outbox(tx = self.outbox, read_only)]
    async fn that_streams_a_write(&self) -> Result<(), AppError> {
        let backend = sea_orm::ConnectionTrait::get_database_backend(tx);
        let write = sea_orm::Statement::from_string(backend, "DELETE FROM orders RETURNING id");
        drop(sea_orm::StreamTrait::stream_raw(tx, write).await?);
        Ok(())
    }

    #[transactional_outbox(tx = self.outbox, read_only)]
    async fn that_emits(&self) -> Result<(), AppError> {
        tx.emit(OrderPlaced { order_id: 1, total: 1 })?;
        Ok(())
    }

    /// Written in, whatever it calls.
    #[transactional_outbox(tx = self.outbox)]
    async fn written_and_read(&self) -> Result<usize, AppError> {
        new_order(1).insert(tx).await?;
        self.orders().await
    }

    #[transactional_outbox(tx = self.outbox, read_only)]
    async fn read_and_written(&self) -> Result<usize, AppError> {
        self.written_and_read().await
    }
}

on_every_database! {
    async fn what_is_read_only_writes_nothing_and_says_so(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let reports = Reports { outbox: shop.outbox.clone() };
        assert_eq!(reports.orders().await.unwrap(), 0);
        for refused in [
            reports.that_writes().await,
            reports.that_streams_a_write().await,
            reports.that_emits().await,
            reports.read_and_written().await.map(drop),
        ] {
            let error = refused.unwrap_err();
            assert!(format!("{error:?}").contains("`read_only`"), "{error:?}");
        }
        assert_eq!(reports.written_and_read().await.unwrap(), 1, "it joins one that is written in");
        assert_eq!((reports.orders().await.unwrap(), shop.saved().await), (1, (1, 0)));
    }
}

#[tokio::test]
async fn all_faults_of_a_configuration_are_told_at_once() {
    let failed = Outbox::builder(DatabaseConnection::default())
        .source("")
        .namespace("not-a-name")
        .partitions(0)
        .build()
        .await
        .unwrap_err();
    let OutboxError::Configuration(faults) = failed else { panic!("{failed}") };
    assert_eq!(faults.len(), 4, "{faults:?}");
    assert!(faults[0].contains("the connection is not open"), "{faults:?}");
}
