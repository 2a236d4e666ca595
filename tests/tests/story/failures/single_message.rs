//! One message that hangs, panics or is rejected while the others of its route are fine: only it is
//! affected.

use crate::support::{
    Answer, Deliveries, Destination, LATE, LEASE, SOON, Sent, World, keys, relay,
};
use async_trait::async_trait;
use outbox_sea_orm::{
    event::Message,
    failure::RetryPolicy,
    transport::{Batch, PublishError, Publisher, Receipt, Route, everything},
};
use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tests::{databases::TempDatabase, holds_within, on_every_database};

/// The key whose event fails.
const CULPRIT: &str = "culprit";

/// How the publisher fails for one key.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// It never answers.
    Hangs,
    /// It panics, and a batch with it.
    Panics,
}

/// A publisher of a user that fails for one key.
struct Fails<P> {
    to: P,
    way: Way,
    tried: Arc<AtomicU32>,
}

#[async_trait]
impl<P: Publisher> Publisher for Fails<P> {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        if message.key.as_deref() != Some(CULPRIT) {
            return self.to.publish(message).await;
        }
        self.tried.fetch_add(1, Ordering::SeqCst);
        match self.way {
            Way::Hangs => pending().await,
            Way::Panics => panic!("on purpose"),
        }
    }
}

/// A publisher of a user that publishes the messages of a batch one after the other.
struct OneByOne<P>(P);

#[async_trait]
impl<P: Publisher> Publisher for OneByOne<P> {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        self.0.publish(message).await
    }

    async fn publish_batch(&self, batch: &mut Batch) {
        for (index, message) in batch.messages().iter().enumerate() {
            let outcome = self.0.publish(message).await;
            batch.done(index, outcome);
        }
    }
}

fn is_culprit(sent: &Sent) -> bool {
    sent.key.as_deref() == Some(CULPRIT)
}

/// Forty keys with five events each and one that fails: the former arrive at once, the latter is a
/// dead letter after three attempts.
async fn fails_alone(db: &TempDatabase, way: Way) {
    let world = World::open(db).await;
    let destination = Destination::new();
    let tried = Arc::<AtomicU32>::default();
    let publisher = Fails { to: destination.publisher("a"), way, tried: tried.clone() };
    let mut expected = keys(40, 5);
    expected.insert(CULPRIT.to_owned(), 1);
    world.emit_all(&expected).await;
    expected.remove(CULPRIT);
    let source = world.source();
    let few = RetryPolicy::attempts(3, Duration::from_millis(50));
    let route =
        Route::new("a", everything(), publisher).deadline(Duration::from_secs(2)).retry(few);
    let running = relay(&source, LEASE).add_route(route).start().await.unwrap();
    destination.wait_for(200, SOON).await;
    if way == Way::Hangs {
        // Its three attempts take three deadlines; those of a panic may be over before.
        assert_eq!(
            world.count("outbox_dead_letters").await,
            0,
            "nobody waited for the one that fails"
        );
    }
    world.wait_for_letters(1, SOON).await;
    world.drained(SOON).await;
    running.shutdown(SOON).await.unwrap();
    Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order().repeats_at_most(0);
    let letters = world.letters().await;
    let found: Vec<_> =
        letters.iter().map(|l| (l.key.as_deref(), l.reason.as_str(), l.attempts)).collect();
    assert_eq!(found, [(Some(CULPRIT), "exhausted", 3)]);
    assert_eq!(tried.load(Ordering::SeqCst), 3);
}

/// The limit of an event that is rejected without others.
const BRIEFLY: Duration = Duration::from_secs(1);

on_every_database! {
    async fn one_publish_that_hangs_is_a_letter_after_its_attempts_and_nobody_else_waits(db: &TempDatabase) {
        fails_alone(db, Way::Hangs).await;
    }

    async fn one_publish_that_panics_is_a_letter_after_its_attempts_and_nobody_else_waits(db: &TempDatabase) {
        fails_alone(db, Way::Panics).await;
    }

    async fn one_that_hangs_in_a_batch_that_is_published_one_by_one_is_found_and_those_behind_it_arrive(db: &TempDatabase) {
        let world = World::open(db).await;
        let destination = Destination::new();
        let fails = Fails { to: destination.publisher("a"), way: Way::Hangs, tried: Arc::default() };
        let mut expected = keys(40, 5);
        expected.insert(CULPRIT.to_owned(), 1);
        world.emit_all(&expected).await;
        expected.remove(CULPRIT);
        let source = world.source();
        let few = RetryPolicy::attempts(3, Duration::from_millis(50));
        let route = Route::new("a", everything(), OneByOne(fails)).deadline(Duration::from_secs(1)).retry(few);
        let running = relay(&source, LEASE).add_route(route).start().await.unwrap();
        destination.wait_for(200, SOON).await;
        world.wait_for_letters(1, SOON).await;
        world.drained(SOON).await;
        running.shutdown(SOON).await.unwrap();
        Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order().repeats_at_most(0);
        let letters = world.letters().await;
        let found: Vec<_> = letters.iter().map(|l| (l.key.as_deref(), l.reason.as_str())).collect();
        assert_eq!(found, [(Some(CULPRIT), "exhausted")], "those behind it are not to blame");
    }

    async fn an_event_that_alone_is_refused_keeps_nobody_waiting_and_is_a_letter_after_its_time(db: &TempDatabase) {
        let world = World::open(db).await;
        let destination = Destination::scripted(|sent, _| {
            if is_culprit(sent) { Answer::Forbidden } else { Answer::Confirmed }
        });
        let source = world.source();
        let route = Route::new("a", everything(), destination.publisher("a")).give_up_rejected(BRIEFLY);
        let running = relay(&source, LEASE).add_route(route).start().await.unwrap();
        world.emit(CULPRIT, 1).await;
        // The relay probes with another event soon, however long the pauses between probes have
        // become.
        let is_open = async || running.stats().borrow().open_breakers == 1;
        assert!(holds_within(SOON, is_open).await, "the destination is down, as far as can be seen");
        world.emit("other", 1).await;
        destination.wait_for(1, Duration::from_secs(10)).await;
        world.emit(CULPRIT, 2).await;
        world.wait_for_letters(1, SOON).await;
        let letters = world.letters().await;
        assert_eq!((letters[0].reason.as_str(), letters[0].key.as_deref()), ("rejected", Some(CULPRIT)));
        running.shutdown(SOON).await.unwrap();
    }

    async fn an_event_behind_a_destination_that_rejects_everything_is_no_letter_however_long_that_lasts(db: &TempDatabase) {
        let world = World::open(db).await;
        let destination = Destination::scripted(|_, _| Answer::Permanent);
        let source = world.source();
        let route = Route::new("a", everything(), destination.publisher("a")).give_up_rejected(BRIEFLY);
        let running = relay(&source, LEASE).add_route(route).start().await.unwrap();
        let expected = keys(3, 2);
        world.emit_all(&expected).await;
        tokio::time::sleep(BRIEFLY * 3).await;
        assert_eq!(world.count("outbox_dead_letters").await, 0);
        destination.answer_by(|_, _| Answer::Confirmed);
        world.drained(LATE).await;
        running.shutdown(SOON).await.unwrap();
        Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order().repeats_at_most(0);
        assert_eq!(world.count("outbox_dead_letters").await, 0);
    }
}
