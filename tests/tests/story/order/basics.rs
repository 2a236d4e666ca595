//! One relay, nothing fails.

use crate::support::{
    Deliveries, Destination, LEASE, SOON, Sample, World, keys, on_servers, relay,
};
use outbox_sea_orm::{OutboxError, transport::everything};
use sea_orm::{ConnectionTrait, TransactionTrait};
use tests::{databases::TempDatabase, on_every_database};

/// Inserts the fact of an event.
async fn note(connection: &impl ConnectionTrait, fact: &str) {
    connection
        .execute_unprepared(&format!("INSERT INTO story_facts (fact) VALUES ('{fact}')"))
        .await
        .unwrap();
}

on_every_database! {
    async fn what_is_told_after_everything_was_drained_arrives_too(db: &TempDatabase) {
        let (world, destination) = (World::open(db).await, Destination::new());
        let source = world.source();
        let running = relay(&source, LEASE).route("a", everything(), destination.publisher("a"));
        let running = running.start().await.unwrap();
        world.emit_all(&keys(4, 5)).await;
        world.drained(SOON).await;
        // The ids of an empty table may restart: the relay's position must not be past them.
        world.emit("k0", 6).await;
        destination.wait_for(21, SOON).await;
        world.drained(SOON).await;
        running.shutdown(SOON).await.unwrap();

        let source = world.source();
        let next = relay(&source, LEASE).route("a", everything(), destination.publisher("a")).start().await.unwrap();
        world.emit("k0", 7).await;
        destination.wait_for(22, SOON).await;
        next.shutdown(SOON).await.unwrap();
        let mut expected = keys(4, 5);
        expected.insert("k0".into(), 7);
        Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order().repeats_at_most(0);
    }

    async fn a_transaction_that_is_rolled_back_dropped_or_panics_publishes_nothing(db: &TempDatabase) {
        let (world, destination) = (World::open(db).await, Destination::new());
        let source = world.source();
        let running = relay(&source, LEASE).route("a", everything(), destination.publisher("a"));
        let running = running.start().await.unwrap();

        let rolled_back = world.outbox.begin().await.unwrap();
        note(&rolled_back, "rolled back").await;
        rolled_back.emit(Sample::new("rolled back", 1)).unwrap();
        rolled_back.rollback().await.unwrap();

        let dropped = world.outbox.begin().await.unwrap();
        note(&dropped, "dropped").await;
        dropped.emit(Sample::new("dropped", 1)).unwrap();
        drop(dropped);

        let outbox = world.outbox.clone();
        let panicking = tokio::spawn(async move {
            let run = outbox.transaction(async |tx| {
                note(tx, "panicked").await;
                tx.emit(Sample::new("panicked", 1))?;
                if true {
                    panic!("in the middle of a transaction");
                }
                Ok::<_, OutboxError>(())
            });
            run.await
        });
        assert!(panicking.await.unwrap_err().is_panic());

        let written = world.db.begin().await.unwrap();
        world.outbox.enqueue(&written, &Sample::new("written and dropped", 1)).await.unwrap();
        drop(written);

        // Later events arrive, and no others.
        world.emit("kept", 1).await;
        destination.wait_for(1, SOON).await;
        world.drained(SOON).await;
        running.shutdown(SOON).await.unwrap();
        let expected = [("kept".to_owned(), 1)].into();
        Deliveries::of(&destination.confirmed()).is_whole(&expected).repeats_at_most(0);
        assert_eq!(world.count("story_facts").await, 0);
    }
}

// SQLite has one writer: two transactions that have written cannot be open at once.
on_servers! {
    async fn ids_that_are_committed_out_of_order_are_both_delivered(db: &TempDatabase) {
        let (world, destination) = (World::open(db).await, Destination::new());
        let source = world.source();
        let running = relay(&source, LEASE).route("a", everything(), destination.publisher("a"));
        let running = running.start().await.unwrap();
        for round in 1..=20 {
            let early = world.db.begin().await.unwrap();
            world.outbox.enqueue(&early, &Sample::new("early", 2 * round - 1)).await.unwrap();
            world.emit("late", round).await;
            let confirmed = usize::try_from(3 * round).unwrap();
            destination.wait_for(confirmed - 2, SOON).await;
            world.drained(SOON).await;
            early.commit().await.unwrap();
            // The next event of the key has a later id and becomes visible at the same time.
            world.emit("early", 2 * round).await;
            destination.wait_for(confirmed, SOON).await;
        }
        world.drained(SOON).await;
        assert_eq!(running.stats().borrow().beyond_window, 0);
        assert!(running.stats().borrow().late >= 1, "{:?}", *running.stats().borrow());
        running.shutdown(SOON).await.unwrap();
        let expected = [("early".to_owned(), 40), ("late".to_owned(), 20)].into();
        Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order().repeats_at_most(0);
    }
}
