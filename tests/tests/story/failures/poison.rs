//! Events that every destination rejects, and one that crashes its process.

use crate::support::{
    Answer, Deliveries, Destination, LATE, LEASE, SOON, VictimConfig, VictimRoute, World, keys,
    relay, victim,
};
use outbox_sea_orm::transport::everything;
use std::{collections::HashSet, ops::Range};
use tests::{databases::TempDatabase, holds_within, on_every_database};

/// How many times the process may be started until its killer is a dead letter.
const MAX_STARTS: usize = 9;

/// A thousand keys with an event each, some of which every destination rejects.
async fn poisoned(db: &TempDatabase, poison: Range<u64>) {
    let world = World::open(db).await;
    let is_poison: HashSet<String> = poison.clone().map(|key| format!("k{key:04}")).collect();
    let poisonous = is_poison.clone();
    let destination = Destination::scripted(move |sent, _| {
        let refused = sent.key.as_ref().is_some_and(|key| poisonous.contains(key));
        if refused { Answer::Permanent } else { Answer::Confirmed }
    });
    // Named so that they are emitted in their order: the poison events are consecutive.
    let mut expected = (0..1_000).map(|key| (format!("k{key:04}"), 1)).collect();
    world.emit_all(&expected).await;
    let source = world.source();
    let running = relay(&source, LEASE)
        .route("a", everything(), destination.publisher("a"))
        .start()
        .await
        .unwrap();
    world.drained(LATE).await;
    running.shutdown(SOON).await.unwrap();
    expected.retain(|key, _| !is_poison.contains(key));
    Deliveries::of(&destination.confirmed()).is_whole(&expected).repeats_at_most(0);

    let letters = world.letters().await;
    let buried: HashSet<String> = letters.iter().filter_map(|letter| letter.key.clone()).collect();
    assert_eq!((letters.len(), buried), (is_poison.len(), is_poison));
    for letter in &letters {
        assert_eq!((letter.route.as_str(), letter.reason.as_str()), ("a", "rejected"));
        assert!(letter.attempts >= 1 && letter.errors.contains("never"), "{letter:?}");
        assert!(letter.payload.contains(letter.key.as_deref().unwrap()), "{letter:?}");
    }
    assert_eq!(world.count("outbox_retries").await, 0);
}

on_every_database! {
    async fn one_poison_event_is_buried_and_the_others_are_delivered_once(db: &TempDatabase) {
        poisoned(db, 500..501).await;
    }

    async fn two_hundred_poison_events_in_a_row_are_buried_and_the_others_delivered_once(db: &TempDatabase) {
        poisoned(db, 300..500).await;
    }

    async fn an_event_that_kills_its_process_each_time_is_buried_and_its_neighbours_are_delivered(db: &TempDatabase) {
        let world = World::open(db).await;
        let destination = Destination::scripted(|sent, _| {
            let kills = sent.payload == r#"{"key":"k3","n":5}"#;
            if kills { Answer::Death } else { Answer::Confirmed }
        });
        let mut expected = keys(8, 10);
        world.emit_all(&expected).await;
        let route = VictimRoute::to("a", destination.listen().await);
        let in_flight = route.in_flight();
        let config = VictimConfig {
            url: db.url().to_owned(),
            name: "mortal".into(),
            lease_ms: 1_000,
            shutdown_ms: 10_000,
            routes: vec![route],
            ..VictimConfig::default()
        };
        let mut starts = 0;
        loop {
            let mut process = victim(&config).await;
            starts += 1;
            let is_over = async || {
                !process.is_running() || world.rows("SELECT event_id FROM outbox_events LIMIT 1").await.is_empty()
            };
            assert!(holds_within(LATE, is_over).await, "neither dead nor done");
            if process.is_running() {
                assert_eq!(process.terminate(SOON).await.code(), Some(0));
                break;
            }
            assert!(starts < MAX_STARTS, "{starts} processes are dead, and it is not buried");
        }
        assert!(starts > 1, "it killed");
        let letters = world.letters().await;
        let found: Vec<_> = letters.iter().map(|letter| (letter.reason.as_str(), letter.payload.as_str())).collect();
        assert_eq!(found, [("crashed", r#"{"key":"k3","n":5}"#)]);
        // The dead event leaves a gap; the rest of its key follows.
        let story = Deliveries::of(&destination.confirmed());
        assert_eq!(story.first["k3"], [1, 2, 3, 4, 6, 7, 8, 9, 10]);
        expected.remove("k3");
        let mut others = story;
        others.first.remove("k3");
        others.is_whole(&expected).is_in_order().repeats_at_most((starts - 1) * in_flight);
        assert_eq!(world.count("outbox_retries").await, 0);
    }
}
