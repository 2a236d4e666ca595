//! What an operator does about dead letters: redrive, discard, send again.

use crate::stage::{
    Answer, Destination, LATE, LEASE, Part, RoutePart, SOON, Story, Told, World, keys, relay,
    victim,
};
use bytes::Bytes;
use outbox_sea_orm::{
    failure::DeadLetter,
    operator::{AdminStore, Decision, LetterFilter, Progress, redrive_all},
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
/// Of so many events one is taken: a destination that refuses everybody would be left alone for a while.
const ONE_IS_TAKEN_OF: u64 = 5;

fn ann(why: &str) -> Decision {
    Decision::new("ann", why)
}

/// A destination that refuses some messages until it is repaired.
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
    world.outbox.dead_letters(&LetterFilter::all(), None, 100).await.unwrap()
}

on_every_database! {
    async fn a_letter_that_is_redriven_twice_is_delivered_once_and_audited(db: &TempDatabase) {
        let world = World::open(db).await;
        let (destination, repaired) = breakable(|payload| payload.contains(r#""n":2}"#));
        world.tell_all(&keys(4, 3)).await;
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
        Story::of(&destination.confirmed()).is_whole(&expected).repeats_at_most(0);
        assert!(letters(&world).await.is_empty(), "nothing is undecided");
        let filter = LetterFilter { decided_too: true, ..LetterFilter::all() };
        for letter in world.outbox.dead_letters(&filter, None, 100).await.unwrap() {
            let fate = letter.fate.as_ref().unwrap();
            assert_eq!((fate.what.as_str(), fate.by.as_str()), ("redriven", "ann"));
            assert!(["repaired", "pressed again"].contains(&fate.why.as_str()), "{fate:?}");
        }
    }

    async fn thousands_of_letters_are_redriven_with_progress(db: &TempDatabase) {
        let world = World::open(db).await;
        let (destination, repaired) = breakable(|payload| !payload.contains("taken"));
        let all_told = MANY * ONE_IS_TAKEN_OF / (ONE_IS_TAKEN_OF - 1);
        let key = |n: u64| if n.is_multiple_of(ONE_IS_TAKEN_OF) { format!("{n:05} taken") } else { format!("{n:05}") };
        let many: crate::stage::Expected = (0..all_told).map(|n| (key(n), 1)).collect();
        world.tell_all(&many).await;
        let source = world.source();
        let route = Route::new("a", everything(), destination.publisher("a")).at_most_once();
        let burying = relay(&source, LEASE).add_route(route).start().await.unwrap();
        // On a route that never repeats every refusal is a letter at once.
        world.wait_for_letters(i64::try_from(MANY).unwrap(), LATE).await;
        burying.shutdown(SOON).await.unwrap();
        repaired.store(true, Ordering::SeqCst);

        // Long enough that so much work at once does not end it: what is in flight then would be repeated.
        let running = relay(&source, LEASE * 10).route("a", everything(), destination.publisher("a"));
        let running = running.start().await.unwrap();
        let mut told = Vec::new();
        let (all, decision) = (LetterFilter::all().route("a"), ann("repaired"));
        let tell = |progress: Progress| told.push(progress.redriven);
        assert_eq!(redrive_all(&world.outbox, &all, &decision, tell).await.unwrap().redriven, MANY);
        assert!(told.len() >= 10 && told.is_sorted() && told.last() == Some(&MANY), "{told:?}");
        destination.wait_for(usize::try_from(all_told).unwrap(), LATE).await;
        world.drained(LATE).await;
        running.shutdown(SOON).await.unwrap();
        Story::of(&destination.confirmed()).is_whole(&many).repeats_at_most(0);
        assert_eq!(world.count("outbox_retries").await, 0);
    }

    async fn a_parked_key_survives_a_takeover_and_goes_on_in_order_after_the_redrive(db: &TempDatabase) {
        let world = World::open(db).await;
        let (destination, repaired) = breakable(|payload| payload == r#"{"key":"k1","n":2}"#);
        world.tell_all(&keys(3, 5)).await;
        let route = RoutePart { parks: true, ..RoutePart::to("a", destination.listen().await) };
        let part = Part { url: db.url().to_owned(), name: "first".into(), lease_ms: 1_000, ..Part::default() };
        let mut first = victim(&Part { routes: vec![route], ..part }).await;
        world.wait_for_letters(1, SOON).await;
        wait_until(SOON, "only the parked key waits", async || tests::equals(world.count("outbox_events").await, 3)).await;
        first.kill().await;

        let source = world.source();
        let route = Route::new("a", everything(), destination.publisher("a")).park_when_dead();
        let next = relay(&source, LEASE).add_route(route).start().await.unwrap();
        // Told behind the parked ones, and on another key: the latter shows that the next relay works.
        world.tell("k1", 6).await;
        world.tell("k0", 6).await;
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
        Story::of(&destination.confirmed()).is_whole(&expected).is_in_order().repeats_at_most(0);
    }

    async fn a_parked_key_whose_head_is_discarded_goes_on_without_it(db: &TempDatabase) {
        let world = World::open(db).await;
        let (destination, _) = breakable(|payload| payload == r#"{"key":"k1","n":2}"#);
        world.tell_all(&keys(2, 4)).await;
        let source = world.source();
        let route = Route::new("a", everything(), destination.publisher("a")).park_when_dead();
        let running = relay(&source, LEASE).add_route(route).start().await.unwrap();
        world.wait_for_letters(1, SOON).await;
        let ids: Vec<_> = letters(&world).await.iter().map(|letter| letter.id).collect();
        assert_eq!(world.outbox.discard(&ids, &ann("never wanted")).await.unwrap().len(), 1);
        assert!(world.outbox.redrive(&ids, &ann("too late")).await.unwrap().is_empty(), "it is decided");
        world.drained(SOON).await;
        running.shutdown(SOON).await.unwrap();
        let story = Story::of(&destination.confirmed());
        assert_eq!((&story.first["k0"][..], &story.first["k1"][..]), (&[1, 2, 3, 4][..], &[1, 3, 4][..]));
    }

    async fn a_letter_that_is_edited_is_sent_as_a_new_event_that_names_the_old_one(db: &TempDatabase) {
        let world = World::open(db).await;
        let (destination, _) = breakable(|payload| payload.contains("9}"));
        world.tell("k0", 9).await;
        let source = world.source();
        // Nothing else shows whether the destination takes others.
        let route = Route::new("a", topic("story"), destination.publisher("a")).give_up_rejected(Duration::ZERO);
        let running = relay(&source, LEASE).add_route(route).start().await.unwrap();
        world.wait_for_letters(1, SOON).await;
        let letter = letters(&world).await.remove(0);
        let old = letter.message.as_ref().unwrap().id;
        let edited = Bytes::from(serde_json::to_vec(&Told::new("k0", 1)).unwrap());
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
