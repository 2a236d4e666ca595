//! A database that others keep busy is waited for: nothing is counted, and nothing taken for down.

use crate::outbox::installed;
use futures_util::FutureExt;
use outbox_core::{
    consumer::{Consumer, EventHandler, HandlerContext, HandlerError, HandlerOptions},
    event::{
        DecodeError, DecodeEvent, EventContract, EventType, Headers, Message, MessageId,
        MessageParts, Timestamp,
    },
    outbox::{ConsumerStore, Store},
    transport::{Memory, Publisher},
};
use outbox_sea_orm::{Namespace, Outbox, OutboxTransaction, TransactionLimits};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, TransactionTrait};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tests::{
    databases::{Database, TempDatabase},
    on_every_database, wait_until,
};
use tokio::sync::Semaphore;

const SOON: Duration = Duration::from_secs(60);

struct Counted;

impl EventContract for Counted {
    const TYPES: &'static [EventType] =
        &[EventType { name: "counted", version: 1, topic: "counted" }];
}

impl DecodeEvent for Counted {
    fn decode(_: &Message) -> Result<Self, DecodeError> {
        Ok(Self)
    }
}

/// Counts in a row that others count in too; before that it reads, where it is told to, and waits
/// to be let go on.
#[derive(Clone)]
struct Counting {
    reads: bool,
    begun: Arc<Semaphore>,
    gate: Arc<Semaphore>,
    attempts: Arc<Mutex<Vec<u32>>>,
}

impl Counting {
    fn new(reads: bool, open: usize) -> Self {
        let (begun, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(open)));
        Self { reads, begun, gate, attempts: Arc::default() }
    }

    fn attempts(&self) -> Vec<u32> {
        self.attempts.lock().unwrap().clone()
    }
}

impl EventHandler<Counted, Outbox> for Counting {
    async fn handle(
        &self,
        _: Counted,
        cx: &HandlerContext<OutboxTransaction>,
    ) -> Result<(), HandlerError> {
        self.attempts.lock().unwrap().push(cx.attempt());
        if self.reads {
            count(&cx.tx).await;
        }
        self.begun.add_permits(1);
        self.gate.acquire().await?.forget();
        cx.tx.execute_unprepared(COUNT).await?;
        Ok(())
    }
}

const COUNT: &str = "UPDATE counted SET n = n + 1";

async fn count(db: &impl ConnectionTrait) -> i64 {
    let query = Statement::from_string(db.get_database_backend(), "SELECT n FROM counted");
    db.query_one_raw(query).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

async fn world(temp: &TempDatabase) -> (DatabaseConnection, Outbox) {
    let db = temp.connect().await;
    installed(&db, &Namespace::default()).await;
    if db.get_database_backend() == DbBackend::Sqlite {
        // As relays set it: who reads and who writes do not wait for each other.
        db.execute_unprepared("PRAGMA journal_mode = WAL").await.unwrap();
    }
    db.execute_unprepared("CREATE TABLE counted (n BIGINT NOT NULL)").await.unwrap();
    db.execute_unprepared("INSERT INTO counted (n) VALUES (0)").await.unwrap();
    let several = temp.connect_with(|options| _ = options.max_connections(4)).await;
    let limits = TransactionLimits::new().lock_wait(Duration::from_secs(1));
    (db, Outbox::builder(several).source("/shop").transaction_limits(limits).build().await.unwrap())
}

async fn consumer(
    outbox: &Outbox,
    options: HandlerOptions,
    handler: Counting,
) -> (Memory, Consumer) {
    let (publisher, subscriber) = Memory::channel();
    let consumer =
        Consumer::builder("c", outbox).on_with("count", options, handler).subscribe(subscriber);
    let handle = consumer.start().await.unwrap();
    // It has written its row, and knows that no other instance has ended: deliveries are run as
    // they come.
    handle.stats().wait_for(|stats| !stats.isolating).await.unwrap();
    (publisher, handle)
}

fn message() -> Message {
    Message::new(MessageParts {
        id: MessageId::generate(),
        source: "/shop".into(),
        topic: "counted".into(),
        event_type: "counted".into(),
        event_version: 1,
        aggregate_type: None,
        key: Some("a".into()),
        content_type: "application/json".into(),
        payload: "{}".into(),
        headers: Headers::new(),
        created_at: Timestamp::from_micros(1),
        expires_at: None,
        sequence: None,
        retry: None,
    })
}

/// Asks for how long a statement waits for a lock.
async fn lock_wait(db: &impl ConnectionTrait) -> String {
    let query = match db.get_database_backend() {
        DbBackend::Postgres => "SELECT current_setting('lock_timeout')",
        DbBackend::MySql => "SELECT CAST(@@innodb_lock_wait_timeout AS CHAR)",
        _ => "SELECT CAST(timeout AS TEXT) FROM pragma_busy_timeout",
    };
    let query = Statement::from_string(db.get_database_backend(), query);
    db.query_one_raw(query).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

on_every_database! {
    async fn the_limits_of_the_framework_s_transactions_reach_none_of_the_application_s(temp: &TempDatabase) {
        installed(&temp.connect().await, &Namespace::default()).await;
        let limits = TransactionLimits::new().lock_wait(Duration::from_secs(7));
        let db = temp.connect_with(|options| _ = options.max_connections(1)).await;
        let own = lock_wait(&db).await;
        for behind_pooler in [false, true] {
            let builder = Outbox::builder(db.clone()).source("/shop").transaction_limits(limits);
            let outbox = if behind_pooler { builder.behind_pooler() } else { builder }.build().await.unwrap();
            let tx = Store::begin(&outbox).await.unwrap();
            let expected = match db.get_database_backend() {
                DbBackend::Postgres => "7s",
                DbBackend::MySql => "7",
                // A file has no such limit; whoever opens the pool sets how long it is waited for.
                _ => own.as_str(),
            };
            assert_eq!(lock_wait(&tx).await, expected, "in a handler's transaction, behind a pooler: {behind_pooler}");
            outbox.commit(tx).await.unwrap();
            let tx = outbox.begin().await.unwrap();
            assert_eq!(lock_wait(&tx).await, own, "in one of the application's, behind a pooler: {behind_pooler}");
            tx.rollback().await.unwrap();
            assert_eq!(lock_wait(&db).await, own, "on its pool");
        }
    }

    async fn a_shared_transaction_has_limits_that_its_connection_loses_again(temp: &TempDatabase) {
        installed(&temp.connect().await, &Namespace::default()).await;
        let db = temp.connect_with(|options| _ = options.max_connections(1)).await;
        for behind_pooler in [false, true] {
            let builder = Outbox::builder(db.clone()).source("/shop");
            let builder = if behind_pooler { builder.behind_pooler() } else { builder };
            let outbox = builder.build().await.unwrap();
            let tx = Store::begin(&outbox).await.unwrap();
            let usual = lock_wait(&tx).await;
            outbox.commit(tx).await.unwrap();
            for end in ["committed", "rolled back", "dropped", "given up"] {
                let shared = outbox.begin_shared(Duration::from_secs(1)).await.unwrap();
                let expected = match db.get_database_backend() {
                    DbBackend::Postgres => "1s",
                    DbBackend::MySql => "1",
                    _ => usual.as_str(),
                };
                assert_eq!(lock_wait(&shared).await, expected);
                match end {
                    "committed" => outbox.commit(shared).await.unwrap(),
                    "rolled back" => outbox.rollback(shared).await.unwrap(),
                    "dropped" => drop(shared),
                    // Its caller goes while the limits are put back, or before.
                    _ => {
                        let ended = outbox.commit(shared).now_or_never();
                        assert!(ended.is_none_or(|ended| ended.is_ok()));
                    }
                }
                let tx = Store::begin(&outbox).await.unwrap();
                assert_eq!(lock_wait(&tx).await, usual, "{end}, behind a pooler: {behind_pooler}");
                outbox.rollback(tx).await.unwrap();
            }
        }
    }

    async fn a_lock_that_is_not_to_be_had_counts_no_attempt_and_is_no_database_that_is_down(temp: &TempDatabase) {
        let (db, outbox) = world(temp).await;
        let handler = Counting::new(false, 1);
        let (publisher, handle) = consumer(&outbox, HandlerOptions::new(), handler.clone()).await;
        let others = db.begin().await.unwrap();
        others.execute_unprepared(COUNT).await.unwrap();
        let (message, mut stats) = (message(), handle.stats());
        let published = publisher.publish(&message);
        let disturbed = async {
            wait_until(SOON, "the lock is not to be had", async || {
                handler.gate.add_permits(1);
                stats.borrow_and_update().disturbed > 1
            })
            .await;
            assert!(!stats.borrow().store_down);
            others.commit().await.unwrap();
        };
        let (published, ()) = tokio::join!(published, disturbed);
        published.unwrap();
        let stats = *handle.stats().borrow();
        handle.shutdown(SOON).await.unwrap();
        assert_eq!((stats.handled + stats.stored, stats.dead_lettered, stats.returned), (1, 0, 0), "{stats:?}");
        assert!(handler.attempts().iter().all(|attempt| *attempt == 1), "{:?}", handler.attempts());
        assert!(stats.stored == 1 || count(&db).await == 2);
    }
}

#[test]
fn a_deferred_handler_of_sqlite_keeps_no_writer_waiting_while_it_waits_itself() {
    tests::databases::run_on(Database::Sqlite, async |temp: &TempDatabase| {
        let (db, outbox) = world(temp).await;
        let handler = Counting::new(false, 0);
        let (publisher, handle) =
            consumer(&outbox, HandlerOptions::new().deferred_lock(), handler.clone()).await;
        let message = message();
        let others_write = async {
            handler.begun.acquire().await.unwrap().forget();
            // What the consumer writes about itself takes moments; the handler would keep the lock until
            // it gets the permit.
            db.execute_unprepared("PRAGMA busy_timeout = 2000").await.unwrap();
            db.execute_unprepared(COUNT).await.expect("the handler does not hold the write lock");
            handler.gate.add_permits(1);
        };
        let (published, ()) = tokio::join!(publisher.publish(&message), others_write);
        published.unwrap();
        assert_eq!((count(&db).await, handler.attempts()), (2, vec![1]));
        publisher.publish(&message).await.unwrap();
        let stats = *handle.stats().borrow();
        handle.shutdown(SOON).await.unwrap();
        assert_eq!(
            (stats.handled, stats.duplicates, stats.disturbed),
            (1, 1, 0),
            "its inbox row is there"
        );
    });
}

#[test]
fn a_deferred_handler_whose_write_comes_too_late_runs_again_and_counts_no_attempt() {
    tests::databases::run_on(Database::Sqlite, async |temp: &TempDatabase| {
        let (db, outbox) = world(temp).await;
        let handler = Counting::new(true, 0);
        let (publisher, handle) =
            consumer(&outbox, HandlerOptions::new().deferred_lock(), handler.clone()).await;
        let message = message();
        let others_write = async {
            handler.begun.acquire().await.unwrap().forget();
            db.execute_unprepared(COUNT).await.unwrap();
            handler.gate.add_permits(2);
        };
        let (published, ()) = tokio::join!(publisher.publish(&message), others_write);
        published.unwrap();
        let stats = *handle.stats().borrow();
        handle.shutdown(SOON).await.unwrap();
        assert_eq!((count(&db).await, handler.attempts()), (2, vec![1, 1]));
        assert_eq!(
            (stats.handled, stats.disturbed, stats.dead_lettered, stats.store_down),
            (1, 1, 0, false)
        );
    });
}
