//! What runs before and after the end, and in which order.

use crate::shop::{AppError, OrderPlaced, Shop, new_order, place};
use outbox_sea_orm::{BoxError, OutboxBuilder, listener::Listener, prelude::*};
use sea_orm::{ActiveModelTrait, ConnectionTrait};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tests::{
    databases::{Database, TempDatabase, run_on},
    on_every_database, wait_until,
};
use tokio::sync::mpsc;

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    fn noting(&self, text: &str) -> impl FnOnce() + Send + 'static {
        let (log, text) = (self.clone(), text.to_owned());
        move || log.note(text)
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Registers one hook of each kind.
fn register(tx: &OutboxTransaction, log: &Log, name: &str) {
    let completion = log.clone();
    let prefix = name.to_owned();
    tx.after_completion(move |outcome| completion.note(format!("{prefix} {outcome:?}")));
    tx.after_commit(log.noting(&format!("{name} after commit")));
    tx.after_rollback(log.noting(&format!("{name} after rollback")));
    let (before, prefix) = (log.clone(), name.to_owned());
    tx.before_commit(move |_| {
        Box::pin(async move {
            before.note(format!("{prefix} before commit"));
            Ok(())
        })
    });
}

on_every_database! {
    async fn phases_run_in_their_order(db: &TempDatabase) {
        let (shop, log) = (Shop::open(db).await, Log::default());
        let tx = shop.outbox.begin().await.unwrap();
        register(&tx, &log, "first");
        register(&tx, &log, "second");
        tx.commit().await.unwrap();
        assert_eq!(log.take(), [
            "first before commit", "second before commit",
            "first after commit", "second after commit",
            "first Committed", "second Committed",
        ]);
        let tx = shop.outbox.begin().await.unwrap();
        register(&tx, &log, "one");
        tx.rollback().await.unwrap();
        assert_eq!(log.take(), ["one after rollback", "one RolledBack"]);
        let tx = shop.outbox.begin().await.unwrap();
        register(&tx, &log, "one");
        drop(tx);
        assert_eq!(log.take(), ["one after rollback", "one RolledBack"]);
    }

    async fn hooks_of_a_nested_transaction_share_its_end_or_its_parent_s(db: &TempDatabase) {
        let (shop, log) = (Shop::open(db).await, Log::default());
        let tx = shop.outbox.begin().await.unwrap();
        register(&tx, &log, "outer");
        let kept = tx.begin().await.unwrap();
        register(&kept, &log, "kept");
        kept.commit().await.unwrap();
        assert!(log.take().is_empty());
        let undone = tx.begin().await.unwrap();
        register(&undone, &log, "undone");
        undone.rollback().await.unwrap();
        assert_eq!(log.take(), ["undone after rollback", "undone RolledBack"]);
        let dropped = tx.begin().await.unwrap();
        register(&dropped, &log, "dropped");
        drop(dropped);
        assert_eq!(log.take(), ["dropped after rollback", "dropped RolledBack"]);
        tx.commit().await.unwrap();
        assert_eq!(log.take(), [
            "outer before commit", "kept before commit", "outer after commit", "kept after commit",
            "outer Committed", "kept Committed",
        ]);
    }

    async fn a_hook_before_commit_may_write_and_emit_and_register_more(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        tx.before_commit(|tx| Box::pin(async move {
            place(tx, 1).await?;
            tx.before_commit(|tx| Box::pin(async move {
                let nested = tx.begin().await?;
                place(&nested, 2).await?;
                nested.commit().await?;
                Ok(())
            }));
            Ok(())
        }));
        tx.commit().await.unwrap();
        assert_eq!(shop.saved().await, (2, 2));
    }

    async fn a_hook_before_commit_that_fails_rolls_back(db: &TempDatabase) {
        let (shop, log) = (Shop::open(db).await, Log::default());
        let tx = shop.outbox.begin().await.unwrap();
        place(&tx, 1).await.unwrap();
        tx.after_commit(log.noting("commit"));
        tx.after_rollback(log.noting("rollback"));
        tx.before_commit(|_| Box::pin(async { Err("not today".into()) }));
        let failed = tx.commit().await.unwrap_err();
        assert!(matches!(&failed, OutboxError::BeforeCommit(e) if e.to_string() == "not today"), "{failed:?}");
        assert_eq!((shop.saved().await, log.take()), ((0, 0), vec!["rollback".to_owned()]));
    }

    async fn a_hook_that_panics_does_not_stop_the_others(db: &TempDatabase) {
        let (shop, log) = (Shop::open(db).await, Log::default());
        let tx = shop.outbox.begin().await.unwrap();
        place(&tx, 1).await.unwrap();
        tx.after_commit(|| panic!("on purpose"));
        tx.after_commit(log.noting("second"));
        tx.commit().await.unwrap();
        assert_eq!((shop.saved().await, log.take()), ((1, 1), vec!["second".to_owned()]));
    }

    async fn listeners_hear_of_events_of_their_type_after_the_commit(db: &TempDatabase) {
        let (log, seen) = (Log::default(), Log::default());
        let (first, second) = (seen.clone(), seen.clone());
        let shop = Shop::open_with(db, |_| (), |outbox: OutboxBuilder| outbox
            .listen(Phase::AfterCommit, move |event: OrderPlaced| {
                let seen = first.clone();
                async move { seen.note(format!("placed {}", event.total)) }
            })
            .listen(Phase::AfterRollback, move |event: OrderPlaced| {
                let seen = second.clone();
                async move { seen.note(format!("not placed {}", event.total)) }
            })).await;
        let tx = shop.outbox.begin().await.unwrap();
        tx.after_commit(log.noting("hook"));
        place(&tx, 1).await.unwrap();
        let nested = tx.begin().await.unwrap();
        place(&nested, 2).await.unwrap();
        nested.commit().await.unwrap();
        tx.emit(crate::shop::OrderNoted { order_id: 1, note: "of another type" }).unwrap();
        assert!(seen.take().is_empty());
        tx.commit().await.unwrap();
        assert_eq!(seen.take(), ["placed 1", "placed 2"]);
        let tx = shop.outbox.begin().await.unwrap();
        place(&tx, 3).await.unwrap();
        tx.rollback().await.unwrap();
        assert_eq!(seen.take(), ["not placed 3"]);
        let tx = shop.outbox.begin().await.unwrap();
        place(&tx, 4).await.unwrap();
        drop(tx);
        let told = async || seen.0.lock().unwrap().as_slice() == ["not placed 4"];
        wait_until(Duration::from_secs(5), "the listener of a dropped transaction is told", told).await;
    }

    async fn a_listener_before_commit_may_refuse(db: &TempDatabase) {
        async fn refuse(event: OrderPlaced) -> Result<(), AppError> {
            if event.total < 0 { Err(AppError::BadTotal) } else { Ok(()) }
        }
        let listening = |outbox: OutboxBuilder| outbox.listen(Phase::BeforeCommit, refuse);
        let shop = Shop::open_with(db, |_| (), listening).await;
        let tx = shop.outbox.begin().await.unwrap();
        place(&tx, 1).await.unwrap();
        tx.commit().await.unwrap();
        let tx = shop.outbox.begin().await.unwrap();
        place(&tx, -1).await.unwrap();
        assert!(matches!(tx.commit().await, Err(OutboxError::BeforeCommit(_))));
        assert_eq!(shop.saved().await, (1, 1));
    }
}

/// Events are seen and written in the order of their emission, whichever handle took them; a
/// nested rollback takes its own.
#[test]
fn events_keep_the_order_of_their_emission_across_handles() {
    on_sqlite(async |db| {
        let seen = Log::default();
        let log = seen.clone();
        let listening = |outbox: OutboxBuilder| {
            outbox.listen(Phase::AfterCommit, move |event: OrderPlaced| {
                let log = log.clone();
                async move { log.note(event.total.to_string()) }
            })
        };
        let shop = Shop::open_with(db, |_| (), listening).await;
        let tx = shop.outbox.begin().await.unwrap();
        let emit = |handle: &OutboxTransaction, total| {
            handle.emit(OrderPlaced { order_id: 1, total }).unwrap()
        };
        emit(&tx, 1);
        let nested = tx.begin().await.unwrap();
        emit(&nested, 2);
        emit(&tx, 3);
        emit(&nested, 4);
        nested.commit().await.unwrap();
        let undone = tx.begin().await.unwrap();
        emit(&undone, 5);
        emit(&tx, 6);
        undone.rollback().await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(seen.take(), ["1", "2", "3", "4", "6"]);
        let backend = ConnectionTrait::get_database_backend(&shop.db);
        let rows = "SELECT CAST(payload AS TEXT) FROM outbox_events ORDER BY event_id";
        let rows =
            shop.db.query_all_raw(sea_orm::Statement::from_string(backend, rows)).await.unwrap();
        let totals: Vec<i64> = rows
            .iter()
            .map(|row| {
                serde_json::from_str::<OrderPlaced>(&row.try_get_by_index::<String>(0).unwrap())
                    .unwrap()
                    .total
            })
            .collect();
        assert_eq!(totals, [1, 2, 3, 4, 6]);
    });
}

/// Runs on one database: what follows a commit does not depend on it.
fn on_sqlite(story: impl AsyncFnOnce(&TempDatabase)) {
    run_on(Database::Sqlite, story);
}

#[test]
fn a_listener_is_tried_three_times_and_then_recovers() {
    on_sqlite(async |db| {
        let (tries, recovered) = (Arc::new(AtomicU32::new(0)), Log::default());
        let (count, log) = (tries.clone(), recovered.clone());
        let listener = Listener::new(move |_: OrderPlaced| {
            let failed: Result<(), BoxError> =
                Err(format!("try {}", count.fetch_add(1, Ordering::SeqCst) + 1).into());
            async move { failed }
        })
        .recover(move |event, error| {
            let log = log.clone();
            async move { log.note(format!("{}: {error}", event.total)) }
        });
        let listening = |outbox: OutboxBuilder| outbox.listen(Phase::AfterCommit, listener);
        let shop = Shop::open_with(db, |_| (), listening).await;
        let tx = shop.outbox.begin().await.unwrap();
        place(&tx, 9).await.unwrap();
        tx.commit().await.expect("a listener after the commit cannot undo it");
        assert_eq!(
            (tries.load(Ordering::SeqCst), recovered.take()),
            (3, vec!["9: try 3".to_owned()])
        );
        assert_eq!(shop.saved().await, (1, 1));
    });
}

#[test]
fn a_listener_that_succeeds_the_second_time_is_not_recovered() {
    on_sqlite(async |db| {
        let (tries, recovered) = (Arc::new(AtomicU32::new(0)), Log::default());
        let (count, log) = (tries.clone(), recovered.clone());
        let listener = Listener::new(move |_: OrderPlaced| {
            let first = count.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                assert!(!first, "a panic counts as a failure");
                Ok::<_, AppError>(())
            }
        })
        .retry(RetryPolicy::attempts(5, Duration::from_millis(1)))
        .recover(move |_, _| {
            let log = log.clone();
            async move { log.note("recovered") }
        });
        let listening = |outbox: OutboxBuilder| outbox.listen(Phase::AfterCompletion, listener);
        let shop = Shop::open_with(db, |_| (), listening).await;
        let tx = shop.outbox.begin().await.unwrap();
        place(&tx, 9).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((tries.load(Ordering::SeqCst), recovered.take().len()), (2, 0));
    });
}

#[test]
fn listeners_go_on_when_the_caller_of_commit_is_gone() {
    on_sqlite(async |db| {
        let (say, mut hear) = mpsc::unbounded_channel();
        let gate = Arc::new(tokio::sync::Notify::new());
        let open = gate.clone();
        let listening = move |outbox: OutboxBuilder| {
            outbox.listen(Phase::AfterCommit, move |event: OrderPlaced| {
                let (say, open) = (say.clone(), open.clone());
                async move {
                    say.send(event.total).unwrap();
                    open.notified().await;
                    say.send(-event.total).unwrap();
                }
            })
        };
        let shop = Shop::open_with(db, |_| (), listening).await;
        let tx = shop.outbox.begin().await.unwrap();
        place(&tx, 9).await.unwrap();
        let commit = tx.commit();
        tokio::select! {
            _ = commit => panic!("the listener waits"),
            seen = hear.recv() => assert_eq!(seen, Some(9)),
        }
        gate.notify_one();
        assert_eq!(hear.recv().await, Some(-9));
    });
}

/// A connection that is gone when COMMIT is sent: nobody knows whether it was done.
#[test]
fn a_commit_on_a_lost_connection_has_an_unknown_outcome() {
    run_on(Database::Postgres, async |db: &TempDatabase| {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        new_order(1).insert(&tx).await.unwrap();
        let log = Log::default();
        let note = log.clone();
        tx.after_completion(move |outcome| note.note(format!("{outcome:?}")));
        tx.after_commit(log.noting("commit"));
        tx.after_rollback(log.noting("rollback"));
        let backend = tx.query_one_raw(sea_orm::Statement::from_string(
            sea_orm::DbBackend::Postgres,
            "SELECT pg_backend_pid()",
        ));
        let pid: i32 = backend.await.unwrap().unwrap().try_get_by_index(0).unwrap();
        shop.db.execute_unprepared(&format!("SELECT pg_terminate_backend({pid})")).await.unwrap();
        let gone = async || crate::hazards::open_transactions(db, &shop.db).await == 0;
        wait_until(Duration::from_secs(5), "the server has ended the session", gone).await;
        let failed = tx.commit().await.unwrap_err();
        assert!(matches!(failed, OutboxError::OutcomeUnknown(_)), "{failed:?}");
        assert!(!failed.is_conflict());
        assert_eq!(log.take(), ["Unknown"]);
    });
}

#[test]
fn a_deferred_constraint_that_fails_at_commit_is_a_rollback() {
    run_on(Database::Postgres, async |db: &TempDatabase| {
        let shop = Shop::open(db).await;
        let unique = "ALTER TABLE shop_order ADD CONSTRAINT one_a_total UNIQUE (total) DEFERRABLE INITIALLY DEFERRED";
        shop.db.execute_unprepared(unique).await.unwrap();
        let tx = shop.outbox.begin().await.unwrap();
        let log = Log::default();
        tx.after_rollback(log.noting("rollback"));
        place(&tx, 1).await.unwrap();
        place(&tx, 1).await.unwrap();
        let failed = tx.commit().await.unwrap_err();
        assert!(matches!(failed, OutboxError::Commit(_)), "{failed:?}");
        assert_eq!((shop.saved().await, log.take()), ((0, 0), vec!["rollback".to_owned()]));
    });
}
