//! Events that become dead letters without an attempt.

use crate::support::{Deliveries, Destination, LEASE, SOON, Sample, World, keys, relay};
use outbox_sea_orm::{OutboxEvent, transport::topic};
use sea_orm::{ConnectionTrait, TransactionTrait};
use serde::Serialize;
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

/// An event that expires after a moment.
#[derive(Serialize, OutboxEvent)]
#[outbox(type = "story.fleeting", topic = "story", ttl = "1ms", encode_only)]
struct Fleeting {
    #[outbox(key)]
    key: &'static str,
}

/// An event that matches no route.
#[derive(Serialize, OutboxEvent)]
#[outbox(type = "story.unrouted", topic = "nowhere", encode_only)]
struct Unrouted {
    #[outbox(key)]
    key: &'static str,
}

on_every_database! {
    async fn what_expired_has_no_route_or_does_not_decode_becomes_a_letter_and_stops_nobody(db: &TempDatabase) {
        let (world, destination) = (World::open(db).await, Destination::new());
        let txn = world.db.begin().await.unwrap();
        world.outbox.enqueue(&txn, &Sample::new("k0", 1)).await.unwrap();
        world.outbox.enqueue(&txn, &Fleeting { key: "k0" }).await.unwrap();
        world.outbox.enqueue(&txn, &Unrouted { key: "k0" }).await.unwrap();
        world.outbox.enqueue(&txn, &Sample::new("broken", 1)).await.unwrap();
        world.outbox.enqueue(&txn, &Sample::new("k0", 2)).await.unwrap();
        txn.commit().await.unwrap();
        let breaks = "UPDATE outbox_events SET headers = '{no json' WHERE message_key = 'broken'";
        world.db.execute_unprepared(breaks).await.unwrap();

        let source = world.source();
        let running = relay(&source, LEASE).route("a", topic("story"), destination.publisher("a"));
        let running = running.unroutable_after(Duration::ZERO).start().await.unwrap();
        world.drained(SOON).await;
        running.shutdown(SOON).await.unwrap();
        Deliveries::of(&destination.confirmed()).is_whole(&keys(1, 2)).is_in_order().repeats_at_most(0);
        let mut letters: Vec<(String, String, Option<String>)> =
            world.letters().await.into_iter().map(|letter| (letter.reason, letter.route, letter.key)).collect();
        letters.sort();
        let letter = |reason: &str, route: &str, key: &str| (reason.to_owned(), route.to_owned(), Some(key.to_owned()));
        assert_eq!(
            letters,
            [letter("expired", "a", "k0"), letter("undecodable", "", "broken"), letter("unroutable", "", "k0")]
        );
    }
}
