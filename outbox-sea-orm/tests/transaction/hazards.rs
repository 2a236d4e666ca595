//! What SeaORM 2.0.4 and sqlx 0.9.0 do to transactions whose futures are dropped, and to swallowed
//! errors. Each story says what was seen with their own transactions; with ours it must not be
//! seen.

use crate::{
    polls::polled,
    shop::{OrderPlaced, Shop, new_order, order, place},
};
use outbox_sea_orm::prelude::*;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DatabaseConnection, EntityTrait,
    PaginatorTrait, QueryFilter, Set, TransactionTrait,
};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use tests::{
    databases::{Database, TempDatabase, run_on},
    on_every_database, wait_until,
};
use tokio::sync::Barrier;

/// How many times a future is dropped in one story.
const TRIES: usize = 60;

/// Counts the orders of a total, over a connection that no transaction has used.
pub(crate) async fn orders_of(onlooker: &DatabaseConnection, total: usize) -> u64 {
    let total = i64::try_from(total).unwrap();
    order::Entity::find().filter(order::Column::Total.eq(total)).count(onlooker).await.unwrap()
}

fn total(n: usize) -> i64 {
    i64::try_from(n).unwrap()
}

on_every_database! {
    /// A dropped `db.begin()` left the pool a connection inside a transaction: of 60 later
    /// autocommit writes 11 were lost on PostgreSQL and 2 on MariaDB, and locks stayed.
    async fn a_begin_that_is_dropped_leaves_no_connection_in_a_transaction(db: &TempDatabase) {
        let shop = Shop::open_with(db, |pool| { pool.max_connections(2); }, |outbox| outbox).await;
        let onlooker = db.connect().await;
        for n in 0..TRIES {
            let begun = polled(shop.outbox.begin(), n % 6).await;
            drop(begun);
            new_order(total(n)).insert(&shop.db).await.unwrap();
            assert_eq!(orders_of(&onlooker, n).await, 1, "the write after try {n} is lost");
        }
    }

    /// A dropped nested `begin()` rolled back the transaction around it, whose owner went on in
    /// autocommit: a rollback left rows in 28 of 30 tries (SQLite), 29 (PostgreSQL), 19 (MariaDB);
    /// a commit answered `Ok` with rows missing in 29, 28 and 6.
    async fn a_nested_begin_that_is_dropped_leaves_the_outer_transaction_as_it_was(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        for n in 0..TRIES {
            let tx = shop.outbox.begin().await.unwrap();
            place(&tx, total(n)).await.unwrap();
            drop(polled(tx.begin(), n % 7).await);
            place(&tx, total(n)).await.unwrap();
            let before = shop.events_of_pool(db).await;
            let expected = if n % 2 == 0 {
                tx.commit().await.unwrap();
                2
            } else {
                tx.rollback().await.unwrap();
                0
            };
            assert_eq!(orders_of(&shop.db, n).await, expected, "try {n}");
            assert_eq!(shop.events_of_pool(db).await - before, i64::try_from(expected).unwrap(), "try {n}");
        }
    }

    /// The same for what a nested transaction does and how it ends: wherever its future is dropped,
    /// its rows and its events are there together or not at all, and the outer transaction's are
    /// there.
    async fn a_nested_transaction_that_is_dropped_anywhere_is_there_or_not(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let (mut kept, mut undone) = (0, 0);
        for n in 0..120 {
            let tx = shop.outbox.begin().await.unwrap();
            place(&tx, total(n)).await.unwrap();
            let nested = async {
                let nested = tx.begin().await.unwrap();
                place(&nested, total(n + 1000)).await.unwrap();
                nested.commit().await.unwrap();
            };
            polled(nested, n % 24).await;
            place(&tx, total(n)).await.unwrap();
            let before = shop.events_of_pool(db).await;
            tx.commit().await.unwrap();
            assert_eq!(orders_of(&shop.db, n).await, 2, "try {n}");
            let inner = orders_of(&shop.db, n + 1000).await;
            let events = shop.events_of_pool(db).await - before;
            assert_eq!(events, 2 + i64::try_from(inner).unwrap(), "try {n}");
            if inner == 0 { undone += 1 } else { kept += 1 }
        }
        assert!(kept > 0 && undone > 0, "both ends were seen: {kept} kept, {undone} undone");
    }

    /// A dropped `commit()` tore hooks from data: committed without its hook at 1 of 7 polls on
    /// PostgreSQL and 3 of 7 on MariaDB.
    async fn a_commit_that_is_dropped_runs_its_phases_with_its_data(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let (mut committed, mut rolled_back) = (0, 0);
        for n in 0..TRIES {
            let tx = shop.outbox.begin().await.unwrap();
            place(&tx, total(n)).await.unwrap();
            let (say, hear) = tokio::sync::oneshot::channel();
            tx.after_completion(|outcome| { let _ = say.send(outcome); });
            let told = Arc::new(AtomicU32::new(0));
            let hook = told.clone();
            tx.after_commit(move || { hook.fetch_add(1, Ordering::SeqCst); });
            polled(tx.commit(), n % 10).await;
            let outcome = hear.await.expect("every transaction ends with an outcome");
            let saved = orders_of(&shop.db, n).await;
            assert_eq!((saved, outcome == Outcome::Committed), (u64::from(told.load(Ordering::SeqCst)), saved == 1), "try {n}");
            if saved == 1 { committed += 1 } else { rolled_back += 1 }
        }
        assert!(committed > 0 && rolled_back > 0, "both ends were seen: {committed} and {rolled_back}");
    }

    /// Dropping an outer `DatabaseTransaction` while a nested one ran panicked: "Dropping a locked
    /// Transaction".
    async fn an_outer_handle_may_go_while_a_nested_one_is_at_work(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let slow = match db.database() {
            Database::Sqlite => "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT MAX(i) FROM n",
            Database::Postgres => "SELECT pg_sleep(0.1)",
            Database::MariaDb => "SELECT SLEEP(0.1)",
        };
        let tx = shop.outbox.begin().await.unwrap();
        place(&tx, 1).await.unwrap();
        let nested = tx.begin().await.unwrap();
        let started = Arc::new(Barrier::new(2));
        let meet = started.clone();
        let at_work = tokio::spawn(async move {
            {
                let mut statement = nested.execute_unprepared(slow);
                assert!(polled(statement.as_mut(), 1).await.is_none(), "it is under way");
                meet.wait().await;
                statement.await.unwrap();
            }
            nested.commit().await
        });
        started.wait().await;
        drop(tx);
        let committed = at_work.await.expect("no panic");
        assert!(matches!(committed, Err(OutboxError::Ended)), "{committed:?}");
        assert_eq!(shop.saved().await, (0, 0));
    }

    /// A commit while a nested transaction is open saves nothing, and says why.
    async fn a_commit_with_an_open_nested_transaction_is_refused(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        place(&tx, 1).await.unwrap();
        let nested = tx.begin().await.unwrap();
        assert!(matches!(tx.begin().await, Err(OutboxError::NestedOpen)));
        assert!(place(&tx, 1).await.is_err(), "a row of the outer handle would go with the nested transaction");
        tx.emit(OrderPlaced { order_id: 1, total: 1 }).expect("an event of the outer handle stays its own");
        let committed = tx.commit().await;
        assert!(matches!(committed, Err(OutboxError::NestedStillOpen)), "{committed:?}");
        assert!(matches!(nested.emit(OrderPlaced { order_id: 1, total: 1 }), Err(OutboxError::Ended)));
        drop(nested);
        assert_eq!(shop.saved().await, (0, 0));
    }

    /// PostgreSQL responds to COMMIT of a transaction in which a statement failed with ROLLBACK,
    /// and the driver says `Ok`: hooks after commit ran for nothing. The others go on after a
    /// failed statement.
    async fn a_swallowed_error_of_a_statement_is_no_commit_where_the_database_rolls_back(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        for with_event in [false, true] {
            let tx = shop.outbox.begin().await.unwrap();
            let order = new_order(5).insert(&tx).await.unwrap();
            if with_event {
                tx.emit(OrderPlaced::from(&order)).unwrap();
            }
            let again = order::ActiveModel { id: Set(order.id), ..new_order(6) };
            assert!(again.insert(&tx).await.is_err(), "the same key again");
            let (say, hear) = tokio::sync::oneshot::channel();
            tx.after_completion(|outcome| { let _ = say.send(outcome); });
            let committed = tx.commit().await;
            let (saved, outcome) = (orders_of(&shop.db, 5).await, hear.await.unwrap());
            if db.database() == Database::Postgres {
                assert!(matches!(committed, Err(OutboxError::Commit(_))), "{committed:?}");
                assert_eq!((saved, outcome), (0, Outcome::RolledBack));
            } else {
                committed.unwrap();
                assert_eq!(outcome, Outcome::Committed);
            }
        }
        let saved = if db.database() == Database::Postgres { (0, 0) } else { (2, 1) };
        assert_eq!(shop.saved().await, saved);
    }

    /// A nested transaction contains a failed statement: rolled back, the outer one goes on, also
    /// on PostgreSQL.
    async fn a_failed_statement_in_a_nested_transaction_ends_with_it(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        let order = place(&tx, 5).await.unwrap();
        let again = || order::ActiveModel { id: Set(order.id), ..new_order(6) };
        {
            let nested = tx.begin().await.unwrap();
            assert!(again().insert(&nested).await.is_err());
            nested.rollback().await.unwrap();
        }
        {
            let nested = tx.begin().await.unwrap();
            assert!(again().insert(&nested).await.is_err());
            let merged = nested.commit().await;
            assert_eq!(merged.is_err(), db.database() == Database::Postgres, "{merged:?}");
        }
        place(&tx, 7).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(shop.saved().await, (2, 2));
    }

    /// What ends the transaction behind our back, through the driver's own handle, is found at the
    /// commit.
    async fn a_lent_transaction_that_was_ended_is_not_committed(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        place(&tx, 1).await.unwrap();
        tx.sea_orm().await.unwrap().execute_unprepared("ROLLBACK").await.unwrap();
        let committed = tx.commit().await;
        assert!(matches!(committed, Err(OutboxError::Aborted(_))), "{committed:?}");
        assert_eq!(shop.saved().await, (0, 0));
    }

    /// As above, by SeaORM's nested `begin`: dropped half-way it may roll the whole transaction
    /// back, or nothing.
    async fn a_lent_transaction_whose_nested_begin_is_dropped_is_committed_whole_or_refused(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let mut committed = 0;
        for n in 0..30 {
            let tx = shop.outbox.begin().await.unwrap();
            place(&tx, total(n)).await.unwrap();
            let lent = tx.sea_orm().await.unwrap();
            drop(polled(lent.begin(), n % 5).await);
            let saved = tx.commit().await.is_ok();
            assert_eq!(orders_of(&shop.db, n).await, u64::from(saved), "try {n}");
            committed += i64::from(saved);
        }
        assert_eq!(shop.events().await, committed);
    }

    async fn a_lent_transaction_that_is_used_well_is_committed(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        let order = new_order(5).insert(tx.sea_orm().await.unwrap()).await.unwrap();
        let nested = tx.begin().await.unwrap();
        new_order(6).insert(nested.sea_orm().await.unwrap()).await.unwrap();
        nested.commit().await.unwrap();
        let nested = tx.begin().await.unwrap();
        new_order(7).insert(nested.sea_orm().await.unwrap()).await.unwrap();
        nested.rollback().await.unwrap();
        let inner = tx.sea_orm().await.unwrap().begin().await.unwrap();
        new_order(8).insert(&inner).await.unwrap();
        inner.commit().await.unwrap();
        tx.emit(OrderPlaced::from(&order)).unwrap();
        tx.commit().await.unwrap();
        assert_eq!(shop.saved().await, (3, 1));
    }
}

/// Error 1213 has rolled the whole transaction back on MySQL and MariaDB. When it was swallowed,
/// further statements were committed one by one: the event was saved, without its row.
async fn the_victim_swallows(db: &TempDatabase) {
    let shop = Shop::open(db).await;
    for total in [1, 2] {
        new_order(total).insert(&shop.db).await.unwrap();
    }
    let meet = Barrier::new(2);
    let cross = async |ids: [i64; 2]| {
        let tx = shop.outbox.begin().await.unwrap();
        let mut victim = false;
        for id in ids {
            let order =
                order::ActiveModel { id: Set(id), total: Set(100 + ids[0]), ..Default::default() };
            victim |= order.update(&tx).await.is_err();
            if id == ids[0] {
                meet.wait().await;
            }
        }
        let after = new_order(200 + ids[0]).insert(&tx).await;
        assert_eq!(after.is_err(), victim, "a statement after the deadlock is refused");
        let emitted = tx.emit(OrderPlaced { order_id: ids[0], total: 1 });
        assert_eq!(emitted.is_err(), victim);
        let committed = tx.commit().await;
        assert_eq!(committed.is_err(), victim, "{committed:?}");
        if let Err(error) = committed {
            assert!(matches!(error, OutboxError::Aborted(_)) && error.is_conflict(), "{error:?}");
        }
        victim
    };
    let (a, b) = tokio::join!(cross([1, 2]), cross([2, 1]));
    assert!(a ^ b, "one of the two is the victim");
    assert_eq!(shop.saved().await, (3, 1));
    let winner = if a { 2 } else { 1 };
    let touched = order::Entity::find()
        .filter(order::Column::Total.eq(100 + winner))
        .count(&shop.db)
        .await
        .unwrap();
    assert_eq!(touched, 2, "both updates of the winner, none of the victim");
}

#[test]
fn a_deadlock_s_victim_that_swallows_the_error_saves_nothing_on_mariadb() {
    run_on(Database::MariaDb, the_victim_swallows);
}

#[test]
fn a_deadlock_s_victim_that_swallows_the_error_saves_nothing_on_postgres() {
    run_on(Database::Postgres, the_victim_swallows);
}

/// Tells how many sessions of a database are inside a transaction.
pub(crate) async fn open_transactions(db: &TempDatabase, onlooker: &DatabaseConnection) -> usize {
    if db.database() == Database::Sqlite {
        return usize::from(
            onlooker.execute_unprepared("BEGIN IMMEDIATE; ROLLBACK").await.is_err(),
        );
    }
    tests::databases::open_transactions(onlooker).await
}

/// Waits until no session is inside a transaction.
pub(crate) async fn all_at_rest(db: &TempDatabase, onlooker: &DatabaseConnection) {
    let at_rest = async || open_transactions(db, onlooker).await == 0;
    wait_until(
        std::time::Duration::from_secs(5),
        "no connection stays inside a transaction",
        at_rest,
    )
    .await;
}
