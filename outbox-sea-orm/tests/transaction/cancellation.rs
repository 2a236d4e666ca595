//! The whole of a transaction, dropped at every poll.

use crate::{
    hazards::{all_at_rest, orders_of},
    polls::polled,
    shop::{AppError, OrderPlaced, Shop, new_order, place},
};
use outbox_sea_orm::prelude::*;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter,
};
use std::sync::{Arc, Mutex};
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
};
use tokio::sync::oneshot;

/// How often the transaction is run and dropped.
const TRIES: usize = 400;

#[transactional_outbox]
async fn buy(
    tx: &OutboxTransaction,
    total: i64,
    end: oneshot::Sender<Outcome>,
    phases: Arc<Mutex<Vec<&'static str>>>,
) -> Result<(), AppError> {
    tx.after_completion(|outcome| {
        let _ = end.send(outcome);
    });
    let log = |phase| {
        let phases = phases.clone();
        move || phases.lock().unwrap().push(phase)
    };
    tx.after_commit(log("commit"));
    tx.after_rollback(log("rollback"));
    let order = place(tx, total).await?;
    pay(tx, order.id, total).await?;
    tx.before_commit(move |tx| {
        Box::pin(async move {
            place(tx, total).await?;
            Ok(())
        })
    });
    Ok(())
}

#[transactional_outbox(nested)]
async fn pay(tx: &OutboxTransaction, order_id: i64, total: i64) -> Result<(), AppError> {
    new_order(total).insert(tx).await?;
    tx.emit(OrderPlaced { order_id, total })?;
    Ok(())
}

/// A statement that fails after a while, where a server takes its time.
fn fails_late(database: Database) -> &'static str {
    match database {
        Database::Sqlite => "SELECT nothing FROM nowhere",
        Database::Postgres => "DO $$ BEGIN PERFORM pg_sleep(0.02); RAISE EXCEPTION 'late'; END $$",
        Database::MariaDb => "BEGIN NOT ATOMIC DO SLEEP(0.02); SIGNAL SQLSTATE '45000'; END",
    }
}

on_every_database! {
    async fn a_transaction_dropped_at_any_poll_is_all_there_or_not_at_all(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let (mut committed, mut rolled_back, mut never_opened) = (0, 0, 0);
        let mut events = 0;
        // Polls that a whole run takes; learned on the way.
        let mut longest = 2;
        for n in 0..TRIES {
            let total = i64::try_from(n).unwrap();
            let (say, end) = oneshot::channel();
            let phases = Arc::new(Mutex::new(Vec::new()));
            let polls = n % longest;
            if polled(buy(&shop.outbox, total, say, phases.clone()), polls).await.is_none() {
                longest = longest.max(polls + 2);
            }
            let outcome = end.await;
            let phases = phases.lock().unwrap().clone();
            let saved = orders_of(&shop.db, n).await;
            let all = shop.events_of_pool(db).await;
            match outcome {
                Ok(Outcome::Committed) => {
                    assert_eq!((saved, all - events, phases.as_slice()), (3, 3, ["commit"].as_slice()), "try {n}");
                    committed += 1;
                }
                Ok(Outcome::RolledBack) => {
                    assert_eq!((saved, all - events, phases.as_slice()), (0, 0, ["rollback"].as_slice()), "try {n}");
                    rolled_back += 1;
                }
                Ok(Outcome::Unknown) => panic!("try {n}: the outcome of a healthy database is known"),
                Err(_) => {
                    assert_eq!((saved, all - events, phases.len()), (0, 0, 0), "try {n}");
                    never_opened += 1;
                }
            }
            events = all;
        }
        assert!(
            committed > 0 && rolled_back > 0 && never_opened > 0,
            "all ends were seen: {committed} committed, {rolled_back} rolled back, {never_opened} never opened"
        );
        let onlooker = db.connect().await;
        all_at_rest(db, &onlooker).await;
        // A pool with a connection inside a transaction would lose some of these.
        for n in 0..20 {
            new_order(i64::try_from(TRIES + n).unwrap()).insert(&shop.db).await.unwrap();
            assert_eq!(orders_of(&onlooker, TRIES + n).await, 1);
        }
    }

    /// A statement whose caller is gone is still done before the next one, and known to the
    /// transaction.
    async fn a_statement_dropped_at_any_poll_leaves_the_transaction_usable(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        let mut done = 0;
        for n in 0..60 {
            polled(new_order(n).insert(&tx), usize::try_from(n).unwrap() % 6).await;
            let found = crate::shop::order::Entity::find().filter(crate::shop::order::Column::Total.eq(n));
            let found = found.count(&tx).await.unwrap();
            assert!(found <= 1, "try {n}");
            done += found;
        }
        assert!(done > 0);
        tx.commit().await.unwrap();
        assert_eq!(shop.orders().await, done);
    }

    /// A failed statement whose caller is gone: PostgreSQL has ended the transaction, and the
    /// commit says so.
    async fn an_error_that_nobody_waited_for_is_not_forgotten(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let mut seen = 0;
        for n in 0..30 {
            let tx = shop.outbox.begin().await.unwrap();
            new_order(1).insert(&tx).await.unwrap();
            let failing = tx.execute_unprepared(fails_late(db.database()));
            if polled(failing, n % 3 + 1).await.is_some() {
                // The server was faster.
                continue;
            }
            seen += 1;
            let committed = tx.commit().await;
            let ends = db.database() == Database::Postgres;
            assert_eq!(committed.is_err(), ends, "{committed:?}");
        }
        assert!(seen > 0);
        let kept = if db.database() == Database::Postgres { 0 } else { seen };
        assert_eq!(shop.orders().await, kept);
    }
}
