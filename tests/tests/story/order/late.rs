//! Transactions get their ids before they commit, so later ids may become visible first. SQLite has
//! one writer, so its ids commit in order.

use crate::support::{
    Deliveries, Destination, Expected, LATE, LEASE, SOON, Sample, World, keys, on_servers, relay,
};
use outbox_sea_orm::transport::everything;
use sea_orm::{ConnectionTrait, DatabaseTransaction, IsolationLevel, TransactionTrait};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tests::databases::{Database, TempDatabase};

const WRITERS: u64 = 16;
const KEYS: u64 = 50;
const EVENTS: i64 = 20_000;
/// Events of one transaction.
const EACH: u64 = 5;
/// The default order window of a relay.
const WINDOW: u64 = 10_000;

/// Locks the row of a key and enqueues its next events: the database gives them ids before their
/// transaction commits.
async fn enqueue_next(world: &World, txn: &DatabaseTransaction, key: u64) {
    let lock = format!("UPDATE story_progress SET n = n + {EACH} WHERE k = {key}");
    txn.execute_unprepared(&lock).await.unwrap();
    let select = format!("SELECT n FROM story_progress WHERE k = {key}");
    let select = sea_orm::Statement::from_string(txn.get_database_backend(), select);
    let row = txn.query_one_raw(select).await.unwrap().unwrap();
    let last = row.try_get_by_index::<i64>(0).unwrap().cast_unsigned();
    let events: Vec<Sample> =
        (last - EACH + 1..=last).map(|n| Sample::new(format!("k{key}"), n)).collect();
    world.outbox.enqueue_many(txn, &events).await.unwrap();
}

/// Commits transactions until enough events are written; each pauses between INSERT and COMMIT, so
/// that later ids commit first.
async fn write(world: Arc<World>, left: Arc<AtomicI64>, seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    while left.fetch_sub(EACH.cast_signed(), Ordering::SeqCst) > 0 {
        let txn = world.db.begin().await.unwrap();
        enqueue_next(&world, &txn, dice.u64(0..KEYS)).await;
        tokio::time::sleep(Duration::from_micros(dice.u64(0..3_000))).await;
        txn.commit().await.unwrap();
        world.outbox.wake();
    }
}

on_servers! {
    async fn of_sixteen_writers_at_once_nothing_is_lost_and_keys_keep_their_order(db: &TempDatabase) {
        let pool = db.connect_with(|options| _ = options.max_connections(20)).await;
        let (world, destination) = (Arc::new(World::on(pool).await), Destination::new());
        world.db.execute_unprepared("CREATE TABLE story_progress (k BIGINT NOT NULL PRIMARY KEY, n BIGINT NOT NULL)").await.unwrap();
        for key in 0..KEYS {
            world.db.execute_unprepared(&format!("INSERT INTO story_progress (k, n) VALUES ({key}, 0)")).await.unwrap();
        }
        let source = world.source();
        let running = relay(&source, LEASE).route("a", everything(), destination.publisher("a"));
        let running = running.start().await.unwrap();
        // This transaction is late for certain: a relay that lags behind the sixteen writers sees
        // none of theirs late. A thousand later events have some of its partition among them, whose
        // position is past it then.
        let late = begin_late(&world, db).await;
        enqueue_next(&world, &late, 0).await;
        let left = Arc::new(AtomicI64::new(EVENTS - EACH.cast_signed()));
        let writers: Vec<_> =
            (0..WRITERS).map(|seed| tokio::spawn(write(world.clone(), left.clone(), seed))).collect();
        destination.wait_for(1_000, LATE).await;
        late.commit().await.unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
        world.drained(LATE).await;
        let stats = *running.stats().borrow();
        running.shutdown(SOON).await.unwrap();
        let rows = world.rows("SELECT k, n FROM story_progress").await;
        let counted = |row: &sea_orm::QueryResult| {
            (format!("k{}", row.try_get_by_index::<i64>(0).unwrap()), row.try_get_by_index::<i64>(1).unwrap().cast_unsigned())
        };
        let expected: Expected = rows.iter().map(counted).collect();
        assert_eq!(expected.values().sum::<u64>(), EVENTS.cast_unsigned());
        Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order().repeats_at_most(0);
        assert!(stats.late > 0, "some committed late: {stats:?}");
        assert_eq!(stats.beyond_window, 0, "{stats:?}");
    }

    async fn a_transaction_that_stays_open_within_the_order_window_keeps_the_order_of_its_key(db: &TempDatabase) {
        let (stats, story) = overtaken_by(db, WINDOW - 1_000).await;
        story.is_in_order().repeats_at_most(0);
        assert_eq!((stats.late > 0, stats.beyond_window), (true, 0), "{stats:?}");
    }

    async fn a_transaction_that_stays_open_beyond_the_order_window_is_not_lost_and_counted(db: &TempDatabase) {
        let (stats, story) = overtaken_by(db, 2 * WINDOW).await;
        story.repeats_at_most(0);
        assert!(stats.beyond_window > 0, "{stats:?}");
    }
}

/// Opens a transaction that stays open while others write. On MariaDB at READ COMMITTED: at
/// REPEATABLE READ InnoDB may lock the gap before its own row while rows beside it are purged, and
/// whoever inserts there would wait for 50 s. What is shown here is the relay.
async fn begin_late(world: &World, db: &TempDatabase) -> DatabaseTransaction {
    let isolation = (db.database() == Database::MariaDb).then_some(IsolationLevel::ReadCommitted);
    world.db.begin_with_config(isolation, None).await.unwrap()
}

/// Keeps a transaction open while so many later events pass, then commits it, and right after it the next of its key.
async fn overtaken_by(
    db: &TempDatabase,
    later: u64,
) -> (outbox_sea_orm::relay::RelayStats, Deliveries) {
    let (world, destination) = (World::open(db).await, Destination::new());
    let source = world.source();
    let running = relay(&source, LEASE).route("a", everything(), destination.publisher("a"));
    let running = running.start().await.unwrap();
    let open = begin_late(&world, db).await;
    world.outbox.enqueue(&open, &Sample::new("open", 1)).await.unwrap();
    // Enough keys for every partition.
    let mut expected = keys(100, later / 100);
    world.emit_all(&expected).await;
    destination.wait_for(usize::try_from(later).unwrap(), LATE).await;
    world.drained(LATE).await;
    open.commit().await.unwrap();
    world.emit("open", 2).await;
    destination.wait_for(usize::try_from(later + 2).unwrap(), SOON).await;
    world.drained(SOON).await;
    wait_for_the_counters(&running, later + 2).await;
    let stats = *running.stats().borrow();
    running.shutdown(SOON).await.unwrap();
    expected.insert("open".into(), 2);
    let story = Deliveries::of(&destination.confirmed());
    story.is_whole(&expected);
    (stats, story)
}

/// The relay updates its counters some moments later.
async fn wait_for_the_counters(running: &outbox_sea_orm::relay::Relay, delivered: u64) {
    let mut stats = running.stats();
    let shown = stats.wait_for(|stats| stats.delivered >= delivered);
    tests::in_time(SOON, "the late event is shown", shown).await.unwrap();
}
