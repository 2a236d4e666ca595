//! Handlers that an operator tries on a dead letter: what they did is shown, and nothing stays.

use crate::{
    polls::polled,
    shop::{AppError, OrderPlaced, Shop, new_order, order, place},
};
use outbox_core::{
    consumer::{Trial, TrialEvent, TrialRefusal, TrialResult},
    event::{EventId, LetterId, Timestamp},
    failure::{ConsumerOrigin, DeadLetter, DeadReason},
    outbox::{Store, TableChange},
};
use outbox_sea_orm::prelude::*;
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DbBackend, EntityTrait, Statement, TransactionTrait,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tests::{
    databases::{Database, TempDatabase},
    in_time, on_every_database,
};
use tokio::sync::Notify;

const SOON: Duration = Duration::from_secs(60);

/// What has run beside the handlers.
#[derive(Clone, Default)]
struct Ran(Arc<Mutex<Vec<&'static str>>>);

impl Ran {
    fn note(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    fn all(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }
}

struct Billing {
    outbox: Outbox,
    ran: Ran,
    dropped: Arc<Notify>,
}

/// Says that it was dropped.
struct Dropped(Arc<Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[event_handler]
impl Billing {
    #[on("bill")]
    async fn bill(&self, placed: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        let (tx, ran) = (&cx.tx, &self.ran);
        for _ in 0..3 {
            place(tx, placed.total).await?;
        }
        tx.execute_unprepared("UPDATE shop_order SET total = 9").await?;
        tx.execute_unprepared("DELETE FROM shop_order WHERE total = 1").await?;
        order::Entity::insert_many([new_order(7), new_order(8)]).exec(tx).await?;
        // What is taken back counts for nothing.
        let inner = tx.begin().await?;
        place(&inner, 1).await?;
        inner.rollback().await?;
        let inner = tx.begin().await?;
        place(&inner, 2).await?;
        inner.commit().await?;
        self.outbox.enqueue(tx, &OrderPlaced { order_id: 70, total: 7 }).await?;
        let before = ran.clone();
        tx.before_commit(move |tx| {
            before.note("before commit");
            Box::pin(async move { Ok(tx.emit(OrderPlaced { order_id: 80, total: 8 }).map(drop)?) })
        });
        for (phase, at) in [("commit", 0), ("rollback", 1), ("completion", 2)] {
            let ran = ran.clone();
            match at {
                0 => tx.after_commit(move || ran.note(phase)),
                1 => tx.after_rollback(move || ran.note(phase)),
                _ => tx.after_completion(move |_| ran.note(phase)),
            }
        }
        Ok(())
    }

    #[on("reads")]
    async fn reads(&self, _: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        order::Entity::find().all(&cx.tx).await?;
        Ok(())
    }

    #[on("apart")]
    async fn apart(&self, placed: OrderPlaced, _: &HandlerContext) -> Result<(), AppError> {
        self.note_apart(placed.total).await
    }

    #[on("begins")]
    async fn begins(&self, placed: OrderPlaced, _: &HandlerContext) -> Result<(), AppError> {
        // Whoever swallows the refusal is told of all the same.
        let _ = self.outbox.transaction(async |tx| place(tx, placed.total).await).await;
        let _ = TransactionTrait::begin(&self.outbox).await;
        let tx = self.outbox.begin().await?;
        place(&tx, placed.total).await?;
        tx.commit().await?;
        Ok(())
    }

    #[on("alters")]
    async fn alters(&self, _: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        place(&cx.tx, 1).await?;
        cx.tx.execute_unprepared("CREATE TABLE side_effect (id INT)").await?;
        Ok(())
    }

    #[on("deferred")]
    async fn deferred(&self, _: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        // Its order does not exist, which is checked at the commit.
        cx.tx.execute_unprepared("INSERT INTO line (shop_order) VALUES (-1)").await?;
        Ok(())
    }

    #[on("hangs-before-commit")]
    async fn hangs(&self, _: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        cx.tx.before_commit(|_| Box::pin(std::future::pending()));
        Ok(())
    }

    #[on("calls")]
    async fn calls(&self, placed: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        place(&cx.tx, placed.total).await?;
        cx.tx.execute_unprepared("CALL book()").await?;
        Ok(())
    }

    #[on("commits")]
    async fn commits(&self, placed: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        place(&cx.tx, placed.total).await?;
        cx.tx.sea_orm().await?.execute_unprepared("COMMIT").await?;
        Ok(())
    }

    #[on("several")]
    async fn several(&self, placed: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        place(&cx.tx, placed.total).await?;
        cx.tx.execute_unprepared("DELETE FROM shop_order; COMMIT").await?;
        Ok(())
    }

    #[on("driver")]
    async fn driver(&self, placed: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        new_order(placed.total).insert(cx.tx.sea_orm().await?).await?;
        Ok(())
    }

    #[on("refused-at-commit")]
    async fn refused_at_commit(&self, _: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        cx.tx.before_commit(|_| Box::pin(async { Err("the books do not balance".into()) }));
        Ok(())
    }

    #[on("waits")]
    async fn waits(&self, placed: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        let update = format!("UPDATE shop_order SET total = {}", placed.total);
        cx.tx.execute_unprepared(&update).await?;
        Ok(())
    }

    #[on("never-ends")]
    async fn never_ends(&self, placed: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        let _dropped = Dropped(self.dropped.clone());
        place(&cx.tx, placed.total).await?;
        let ran = self.ran.clone();
        cx.tx.after_rollback(move || ran.note("rollback"));
        std::future::pending().await
    }

    #[on("rejects")]
    async fn rejects(&self, _: OrderPlaced, _: &HandlerContext) -> Result<(), HandlerError> {
        Err(HandlerError::reject("an amount is positive"))
    }

    #[on("panics")]
    async fn panics(&self, placed: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        place(&cx.tx, placed.total).await?;
        panic!("on purpose")
    }

    #[on("charges", no_try = "it charges the card")]
    async fn charges(&self, _: OrderPlaced, _: &HandlerContext) -> Result<(), AppError> {
        self.ran.note("charged");
        Ok(())
    }
}

impl Billing {
    #[transactional_outbox(tx = self.outbox, requires_new)]
    async fn note_apart(&self, total: i64) -> Result<(), AppError> {
        new_order(total).insert(tx).await?;
        Ok(())
    }
}

/// A running consumer with its shop.
struct World {
    shop: Shop,
    consumer: Consumer,
    /// A consumer whose subscribers are closed ends.
    _publisher: Memory,
    ran: Ran,
    dropped: Arc<Notify>,
}

impl World {
    async fn open(database: &TempDatabase) -> Self {
        let shop = Shop::open(database).await;
        let (ran, dropped) = (Ran::default(), Arc::default());
        let billing = Billing {
            outbox: shop.outbox.clone(),
            ran: ran.clone(),
            dropped: Arc::clone(&dropped),
        };
        let (publisher, subscriber) = Memory::channel();
        let consumer = Consumer::builder("billing", &shop.outbox).handlers(billing);
        let consumer = consumer.subscribe(subscriber).start().await.unwrap();
        Self { shop, consumer, _publisher: publisher, ran, dropped }
    }

    async fn try_handler(&self, handler: &str) -> Result<Trial, TrialRefusal> {
        let letter = letter("billing", handler, DeadReason::Exhausted);
        in_time(SOON, "a try ends", self.consumer.try_handle(&letter)).await
    }

    /// Nothing was committed.
    async fn is_untouched(&self) {
        assert_eq!(self.shop.saved().await, (0, 0));
        assert_eq!(self.shop.count("outbox_inbox").await, 0);
    }
}

fn letter(consumer: &str, handler: &str, reason: DeadReason) -> DeadLetter {
    let message = Message::for_test(&OrderPlaced { order_id: 7, total: 3 }).unwrap();
    let origin = ConsumerOrigin { consumer: consumer.to_owned(), handler: handler.to_owned() };
    let at = Timestamp::from_micros(1);
    let (id, event) = (LetterId(1), EventId(0));
    DeadLetter::new(
        id,
        event,
        Some(message),
        String::new(),
        reason,
        3,
        Vec::new(),
        false,
        at,
        None,
        None,
    )
    .with_consumer_origin(Some(origin))
}

/// Gives the session of a transaction, with how long it waits for a lock.
async fn session(tx: &OutboxTransaction) -> String {
    let sql = match tx.get_database_backend() {
        DbBackend::Postgres => "SELECT pg_backend_pid() || '/' || current_setting('lock_timeout')",
        _ => "SELECT CAST(CONCAT(CONNECTION_ID(), '/', @@innodb_lock_wait_timeout) AS CHAR)",
    };
    let query = Statement::from_string(tx.get_database_backend(), sql);
    tx.query_one_raw(query).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

on_every_database! {
    async fn a_try_shows_tables_events_and_time_and_leaves_nothing(db: &TempDatabase) {
        let world = World::open(db).await;
        let trial = world.try_handler("bill").await.unwrap();
        assert_eq!((trial.result, trial.text.as_str()), (TrialResult::Done, ""));
        assert_eq!((trial.consumer.as_str(), trial.handler.as_str()), ("billing", "bill"));
        // Three and three, none, two, and one in a savepoint that was kept.
        let orders = TableChange { table: Some("shop_order".to_owned()), rows: Some(9) };
        assert_eq!(trial.tables, [orders]);
        let topics = trial.events.iter().all(|e| (e.topic.as_str(), e.event_type.as_str()) == ("orders", "order.placed"));
        assert!(topics && trial.emitted == 6, "{:?}", trial.events);
        let keys: Vec<&str> = trial.events.iter().filter_map(|event| event.key.as_deref()).collect();
        assert!(keys.contains(&"70") && keys.contains(&"80"), "{keys:?}");
        assert!(trial.refused.is_empty() && trial.took_ms < 5_000 && trial.notes.len() == 1, "{trial:?}");
        assert_eq!(world.ran.all(), ["before commit"], "no hook after the end");
        world.is_untouched().await;

        let reads = world.try_handler("reads").await.unwrap();
        assert_eq!((reads.result, reads.tables, reads.emitted), (TrialResult::Done, Vec::new(), 0));
        let driver = world.try_handler("driver").await.unwrap();
        assert_eq!(driver.tables, [TableChange { table: None, rows: None }], "its statements are not seen");
        world.is_untouched().await;
        // The connections work as before.
        let tx = world.shop.outbox.begin().await.unwrap();
        place(&tx, 1).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(world.shop.saved().await, (1, 1));
    }

    async fn what_a_rollback_does_not_undo_is_refused_by_name(db: &TempDatabase) {
        let world = World::open(db).await;
        for (handler, refused, text) in [
            ("apart", vec!["note_apart"], "`note_apart` opens a transaction of its own"),
            ("begins", vec!["Outbox::transaction", "Outbox::begin"], "`Outbox::begin` opens a transaction of its own"),
            ("alters", vec!["the statement `create`"], "refuses the statement `create`"),
            ("several", vec!["several statements in one text"], "run each by itself"),
        ] {
            let trial = world.try_handler(handler).await.unwrap();
            assert_eq!(trial.result, TrialResult::Failed, "{handler}");
            assert!(trial.text.contains(text), "{handler}: {}", trial.text);
            assert_eq!(trial.refused, refused, "{handler}");
        }
        assert!(world.ran.all().is_empty());
        world.is_untouched().await;
        // Outside of a try they are as they were.
        let tx = world.shop.outbox.begin().await.unwrap();
        tx.rollback().await.unwrap();
    }

    async fn a_handler_that_ends_its_transaction_is_told_of(db: &TempDatabase) {
        let handlers: &[&str] = match db.database() {
            // Its driver cannot go on with a connection whose transaction was ended like that.
            Database::Sqlite => return,
            Database::Postgres => &["commits"],
            Database::MariaDb => &["commits", "calls"],
        };
        let world = World::open(db).await;
        if db.database() == Database::MariaDb {
            let book = "CREATE PROCEDURE book() BEGIN DELETE FROM line WHERE id = 1; COMMIT; END";
            for sql in ["CREATE TABLE line (id INT)", book] {
                world.shop.db.execute_unprepared(sql).await.unwrap();
            }
        }
        for (before, handler) in (0..).zip(handlers) {
            let trial = world.try_handler(handler).await.unwrap();
            assert_eq!(trial.result, TrialResult::Failed, "{handler}: {trial:?}");
            let told = |text: &String| text.contains("has ended its transaction");
            assert!(told(&trial.text) && trial.notes.iter().any(told), "{handler}: {trial:?}");
            let saved = (before + 1, 0);
            assert_eq!(world.shop.saved().await, saved, "{handler}: its order alone stays");
        }
    }

    async fn what_would_fail_at_the_commit_alone_is_shown_or_told_of(db: &TempDatabase) {
        let world = World::open(db).await;
        let key = match db.database() {
            Database::MariaDb => return, // It has no such constraint.
            Database::Postgres => "BIGINT",
            Database::Sqlite => "INTEGER",
        };
        let late = "REFERENCES shop_order (id) DEFERRABLE INITIALLY DEFERRED";
        let table = format!("CREATE TABLE line (shop_order {key} {late})");
        world.shop.db.execute_unprepared(&table).await.unwrap();
        let trial = world.try_handler("deferred").await.unwrap();
        if db.database() == Database::Sqlite {
            assert_eq!(trial.result, TrialResult::Done, "{trial:?}");
            assert!(trial.notes.iter().any(|note| note.contains("DEFERRABLE")), "{trial:?}");
        } else {
            assert_eq!(trial.result, TrialResult::Failed, "{trial:?}");
            assert!(trial.text.contains("refused to commit"), "{}", trial.text);
        }
        world.is_untouched().await;
    }

    async fn what_comes_before_the_commit_has_the_time_limit_of_a_try(db: &TempDatabase) {
        let world = World::open(db).await;
        let trial = world.try_handler("hangs-before-commit").await.unwrap();
        assert_eq!(trial.result, TrialResult::Failed, "{trial:?}");
        let late = "what comes before the commit did not end within 5s";
        assert!(trial.text.contains(late), "{}", trial.text);
        world.is_untouched().await;
    }

    async fn a_handler_that_fails_shows_why(db: &TempDatabase) {
        let world = World::open(db).await;
        for (handler, result, text, rows) in [
            ("rejects", TrialResult::Rejected, "an amount is positive", None),
            ("panics", TrialResult::Failed, "a panic: on purpose", Some(1)),
            ("refused-at-commit", TrialResult::Failed, "the books do not balance", None),
        ] {
            let trial = world.try_handler(handler).await.unwrap();
            assert!(trial.result == result && trial.text.contains(text), "{handler}: {trial:?}");
            assert_eq!(trial.tables.first().and_then(|change| change.rows), rows, "{handler}");
            assert_eq!(trial.events, Vec::<TrialEvent>::new(), "what is not committed emits nothing");
        }
        world.is_untouched().await;
    }

    async fn a_handler_that_does_not_end_or_waits_for_a_lock_is_stopped_soon(db: &TempDatabase) {
        let world = World::open(db).await;
        let trial = world.try_handler("never-ends").await.unwrap();
        assert_eq!((trial.result, trial.text.as_str()), (TrialResult::TimedOut, "it did not end within 5s"));
        assert!(trial.took_ms >= 5_000 && trial.tables.len() == 1);
        in_time(SOON, "it is dropped", world.dropped.notified()).await;
        assert!(world.ran.all().is_empty(), "no hook after the end");
        world.is_untouched().await;
        if db.database() == Database::Sqlite {
            // Its pool has one connection, which whoever locks would have.
            return;
        }
        new_order(1).insert(&world.shop.db).await.unwrap();
        let other = world.shop.db.begin().await.unwrap();
        other.execute_unprepared("UPDATE shop_order SET total = 5").await.unwrap();
        let trial = world.try_handler("waits").await.unwrap();
        assert_eq!(trial.result, TrialResult::Failed, "{trial:?}");
        assert!((900..4_000).contains(&trial.took_ms), "it waits for a lock for a second: {trial:?}");
        other.rollback().await.unwrap();
    }

    async fn a_try_that_hits_a_lock_leaves_its_connection_with_the_usual_limits(db: &TempDatabase) {
        if db.database() == Database::Sqlite {
            // A file has no limits that are set in a transaction.
            return;
        }
        let shop = Shop::open_with(db, |pool| _ = pool.max_connections(1), |outbox| outbox).await;
        let trials = Store::trials(&shop.outbox).expect("its transactions can be tried");
        new_order(1).insert(&shop.db).await.unwrap();
        let tx = Store::begin(&shop.outbox).await.unwrap();
        let usual = session(&tx).await;
        tx.rollback().await.unwrap();
        let onlooker = db.connect().await;
        let other = onlooker.begin().await.unwrap();
        other.execute_unprepared("UPDATE shop_order SET total = 5").await.unwrap();
        for end in ["ended", "dropped", "its statement dropped"] {
            let tx = trials.begin_trial(Duration::from_secs(5)).await.unwrap();
            assert_ne!(session(&tx).await, usual, "a try has limits of its own");
            let waits = tx.execute_unprepared("UPDATE shop_order SET total = 6");
            if end == "its statement dropped" {
                assert!(polled(waits, 1).await.is_none(), "it waits for the lock");
            } else {
                waits.await.unwrap_err();
            }
            match end {
                "ended" => drop(trials.end_trial(tx, false).await.unwrap()),
                _ => drop(tx),
            }
            let next = Store::begin(&shop.outbox).await.unwrap();
            assert_eq!(session(&next).await, usual, "{end}: the one connection is as it was");
            next.rollback().await.unwrap();
        }
        other.rollback().await.unwrap();
    }

    async fn a_letter_that_must_not_or_cannot_be_tried_is_refused_with_the_reason(db: &TempDatabase) {
        let world = World::open(db).await;
        let trials = world.consumer.trials();
        let refused = async |letter: DeadLetter| trials.try_handle(&letter).await.unwrap_err().to_string();
        let crashed = letter("billing", "bill", DeadReason::Crashed);
        assert!(refused(crashed).await.contains("ended its process each time"));
        let charges = refused(letter("billing", "charges", DeadReason::Exhausted)).await;
        assert_eq!(charges, "the handler `charges` must not be tried: it charges the card");
        let other = refused(letter("mails", "bill", DeadReason::Exhausted)).await;
        assert!(other.contains("consumer `mails`"), "{other}");
        let unknown = refused(letter("billing", "old", DeadReason::Exhausted)).await;
        assert!(unknown.contains("no handler `old`"), "{unknown}");
        let of_route = letter("", "", DeadReason::Rejected).with_consumer_origin(None);
        assert!(refused(of_route).await.contains("a letter of route"));
        let mut empty = letter("billing", "bill", DeadReason::Exhausted);
        empty.message = None;
        assert!(refused(empty).await.contains("no message"));
        assert!(world.ran.all().is_empty());
        world.is_untouched().await;

        world.consumer.shutdown(Duration::from_secs(10)).await.unwrap();
        let ended = trials.try_handle(&letter("billing", "bill", DeadReason::Exhausted)).await;
        assert!(matches!(ended, Err(TrialRefusal::Ended)), "{ended:?}");
    }
}
