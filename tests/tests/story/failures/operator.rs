//! An operator's decisions about dead letters: redrive, discard, edit.

use crate::support::{
    Answer, Deliveries, Destination, LATE, LEASE, SOON, Sample, VictimConfig, VictimRoute, World,
    keys, relay, victim,
};
use bytes::Bytes;
use outbox_core::admin::Progress;
use outbox_sea_orm::{
    admin::{AdminStore, DeadLetterFilter, OperatorNote, redrive_all},
    failure::DeadLetter,
    transport::{Route, everything, topic},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tests::{databases::TempDatabase, on_every_database, wait_until};

/// Letters that are redriven, 200 in a transaction.
const MANY: u64 = 10_000;
/// One of so many events is confirmed: a destination that rejects all would open its breaker.
const ONE_IS_TAKEN_OF: u64 = 5;

fn ann(why: &str) -> OperatorNote {
    OperatorNote::new("ann", why)
}

/// A destination that rejects some messages until it is repaired.
fn breakable(refuses: impl Fn(&str) -> bool + Send + 'static) -> (Destination, Arc<AtomicBool>) {
    let repaired = Arc::new(AtomicBool::new(false));
    let is_repaired = repaired.clone();
    let destination = Destination::scripted(move |sent, _| {
        let refused = refuses(&sent.payload) && !is_repaired.load(Ordering::SeqCst);
        if refused { Answer::Permanent } else { Answer::Confirmed }
    });
    (destination, repaired)
}

async fn letters(world: &World) -> Vec<DeadLetter> {
    world.outbox.dead_letters(&DeadLetterFilter::all(), None, 100).await.unwrap()
}

on_every_database! {
    async fn a_letter_that_is_redriven_twice_is_delivered_once_and_audited(db: &TempDatabase) {
        let world = World::open(db).await;
        let (destination, repaired) = breakable(|payload| payload.contains(r#""n":2}"#));
        world.emit_all(&keys(4, 3)).await;
        let source = world.source();
        let running = relay(&source, LEASE).route("a", everything(), destination.publisher("a")).start().await.unwrap();
        let beside = world.wait_for_letters_beside_others(4, SOON).await;
        world.drained(SOON).await;
        repaired.store(true, Ordering::SeqCst);
        let ids: Vec<_> = letters(&world).await.iter().map(|letter| letter.id).collect();
        let (once, twice) = (ann("repaired"), ann("pressed again"));
        let (one, two) = tokio::join!(world.outbox.redrive(&ids, &once), world.outbox.redrive(&ids, &twice));
        assert_eq!(one.unwrap().len() + two.unwrap().len(), 4, "each by one of the two");
        assert!(world.outbox.redrive(&ids, &ann("and again")).await.unwrap().is_empty());
        world.drained(SOON).await;
        running.shutdown(SOON).await.unwrap();
        let mut expected = keys(4, 3);
        expected.extend((1..=beside).map(|n| (format!("beside{n}"), 1)));
        Deliveries::of(&destination.confirmed()).is_whole(&expected).repeats_at_most(0);
        assert!(letters(&world).await.is_empty(), "nothing is undecided");
        let filter = DeadLetterFilter { include_resolved: true, ..DeadLetterFilter::all() };
        for letter in world.outbox.dead_letters(&filter, None, 100).await.unwrap() {
            let resolution = letter.resolution.as_ref().unwrap();
            assert_eq!((resolution.action.as_str(), resolution.by.as_str()), ("redriven", "ann"));
            assert!(["repaired", "pressed again"].contains(&resolution.reason.as_str()), "{resolution:?}");
        }
    }

    async fn thousands_of_letters_are_redriven_with_progress(db: &TempDatabase) {
        let world = World::open(db).await;
        let (destination, repaired) = breakable(|payload| !payload.contains("taken"));
        let all_told = MANY * ONE_IS_TAKEN_OF / (ONE_IS_TAKEN_OF - 1);
        let key = |n: u64| if n.is_multiple_of(ONE_IS_TAKEN_OF) { format!("{n:05} taken") } else { format!("{n:05}") };
        let many: crate::support::Expected = (0..all_told).map(|n| (key(n), 1)).collect();
        world.emit_all(&many).await;
        let source = world.source();
        let route = Route::new("a", everything(), destination.publisher("a")).at_most_once();
        let burying = relay(&source, LEASE).add_route(route).start().await.unwrap();
        // On an at-most-once route every rejection is a dead letter at once.
        world.wait_for_letters(i64::try_from(MANY).unwrap(), LATE).await;
        burying.shutdown(SOON).await.unwrap();
        repaired.store(true, Ordering::SeqCst);

        // The lease is so long that so much work does not let it expire: publishes in flight would
        // be repeated.
        let running = relay(&source, LEASE * 10).route("a", everything(), destination.publisher("a"));
        let running = running.start().await.unwrap();
        let mut reported = Vec::new();
        let (all, decision) = (DeadLetterFilter::all().route("a"), ann("repaired"));
        let report = |progress: Progress| reported.push(progress.redriven);
        assert_eq!(redrive_all(&world.outbox, &all, &decision, report).await.unwrap().redriven, MANY);
        assert!(reported.len() >= 10 && reported.is_sorted() && reported.last() == Some(&MANY), "{reported:?}");
        destination.wait_for(usize::try_from(all_told).unwrap(), LATE).await;
        world.drained(LATE).await;
        running.shutdown(SOON).await.unwrap();
        Deliveries::of(&destination.confirmed()).is_whole(&many).repeats_at_most(0);
        assert_eq!(world.count("outbox_retries").await, 0);
    }

    async fn a_parked_key_survives_a_takeover_and_goes_on_in_order_after_the_redrive(db: &TempDatabase) {
        let world = World::open(db).await;
        let (destination, repaired) = breakable(|payload| payload == r#"{"key":"k1","n":2}"#);
        world.emit_all(&keys(3, 5)).await;
        let route = VictimRoute { parks: true, ..VictimRoute::to("a", destination.listen().await) };
        let config = VictimConfig { url: db.url().to_owned(), name: "first".into(), lease_ms: 1_000, ..VictimConfig::default() };
        let mut first = victim(&VictimConfig { routes: vec![route], ..config }).await;
        world.wait_for_letters(1, SOON).await;
        wait_until(SOON, "only the parked key waits", async || tests::equals(world.count("outbox_events").await, 3)).await;
        first.kill().await;

        let source = world.source();
        let route = Route::new("a", everything(), destination.publisher("a")).park_when_dead();
        let next = relay(&source, LEASE).add_route(route).start().await.unwrap();
        // One event behind the parked ones and one on another key: the latter shows that the next
        // relay works.
        world.emit("k1", 6).await;
        world.emit("k0", 6).await;
        world.wait_for_shares(&[16], "the next relay owns all").await;
        wait_until(SOON, "the key waits for its head", async || tests::equals(world.count("outbox_events").await, 4)).await;
        assert_eq!(destination.confirmed().iter().filter(|sent| sent.key.as_deref() == Some("k1")).count(), 1);
        repaired.store(true, Ordering::SeqCst);
        let ids: Vec<_> = letters(&world).await.iter().map(|letter| letter.id).collect();
        assert_eq!(world.outbox.redrive(&ids, &ann("repaired")).await.unwrap().len(), 1);
        world.drained(SOON).await;
        next.shutdown(SOON).await.unwrap();
        let mut expected = keys(3, 5);
        expected.insert("k0".into(), 6);
        expected.insert("k1".into(), 6);
        Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order().repeats_at_most(0);
    }

    async fn a_parked_key_whose_head_is_discarded_goes_on_without_it(db: &TempDatabase) {
        let world = World::open(db).await;
        let (destination, _) = breakable(|payload| payload == r#"{"key":"k1","n":2}"#);
        world.emit_all(&keys(2, 4)).await;
        let source = world.source();
        let route = Route::new("a", everything(), destination.publisher("a")).park_when_dead();
        let running = relay(&source, LEASE).add_route(route).start().await.unwrap();
        world.wait_for_letters(1, SOON).await;
        let ids: Vec<_> = letters(&world).await.iter().map(|letter| letter.id).collect();
        assert_eq!(world.outbox.discard(&ids, &ann("never wanted")).await.unwrap().len(), 1);
        assert!(world.outbox.redrive(&ids, &ann("too late")).await.unwrap().is_empty(), "it is decided");
        world.drained(SOON).await;
        running.shutdown(SOON).await.unwrap();
        let story = Deliveries::of(&destination.confirmed());
        assert_eq!((&story.first["k0"][..], &story.first["k1"][..]), (&[1, 2, 3, 4][..], &[1, 3, 4][..]));
    }

    async fn a_letter_that_is_edited_is_sent_as_a_new_event_that_names_the_old_one(db: &TempDatabase) {
        let world = World::open(db).await;
        let (destination, _) = breakable(|payload| payload.contains("9}"));
        world.emit("k0", 9).await;
        let source = world.source();
        // There are no other events that would show whether the destination confirms any.
        let route = Route::new("a", topic("story"), destination.publisher("a")).give_up_rejected(Duration::ZERO);
        let running = relay(&source, LEASE).add_route(route).start().await.unwrap();
        world.wait_for_letters(1, SOON).await;
        let letter = letters(&world).await.remove(0);
        let old = letter.message.as_ref().unwrap().id;
        let edited = Bytes::from(serde_json::to_vec(&Sample::new("k0", 1)).unwrap());
        let new = world.outbox.resend(letter.id, edited.clone(), &ann("a typing mistake")).await.unwrap().unwrap();
        assert_ne!(new, old);
        assert_eq!(world.outbox.resend(letter.id, edited, &ann("again")).await.unwrap(), None, "it is decided");
        destination.wait_for(1, SOON).await;
        world.drained(SOON).await;
        running.shutdown(SOON).await.unwrap();
        let sent = destination.confirmed().remove(0);
        assert_eq!((sent.id, sent.payload.as_str()), (new.to_string(), r#"{"key":"k0","n":1}"#));
        assert_eq!(sent.cause, Some(old.to_string()));
        assert!(letters(&world).await.is_empty());
    }
}
