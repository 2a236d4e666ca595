//! Relays with different routes.

use crate::support::{
    Answer, Deliveries, Destination, LATE, SOON, Sent, VictimConfig, VictimRoute, World, keys,
    relay, victim,
};
use outbox_sea_orm::{
    Outbox, OutboxError, OutboxEvent,
    failure::RetryPolicy,
    transport::{LimitError, Route, everything, topic},
};
use serde::Serialize;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tests::{databases::TempDatabase, on_every_database, wait_until};

/// A lease that is renewed every half second.
const SHORT: Duration = Duration::from_millis(1_500);

/// An event that only the next version of the service emits.
#[derive(Serialize, OutboxEvent)]
#[outbox(type = "story.added", topic = "added", encode_only)]
struct Added {
    #[outbox(key)]
    key: String,
    n: u64,
}

/// Gives the numbers of the sent events.
fn numbers(sent: &[Sent]) -> Vec<u64> {
    let number = |sent: &Sent| {
        serde_json::from_str::<serde_json::Value>(&sent.payload).unwrap()["n"].as_u64().unwrap()
    };
    sent.iter().map(number).collect()
}

/// Waits until so many rows of events without a route meet a condition.
async fn wait_for_unrouted(world: &World, n: i64, condition: &str) {
    let sql = format!(
        "SELECT COUNT(*) FROM outbox_retries WHERE route = '' AND state = 'waiting' AND {condition}"
    );
    wait_until(SOON, condition, async || tests::equals(world.number(&sql).await, n)).await;
}

on_every_database! {
    async fn events_of_a_topic_that_a_deployment_adds_wait_for_the_relay_that_takes_them(db: &TempDatabase) {
        let (world, destination) = (World::open(db).await, Destination::new());
        let source = world.source();
        let old = relay(&source, SHORT).route("a", topic("story"), destination.publisher("a"));
        let old = old.unroutable_after(Duration::from_secs(1)).start().await.unwrap();
        world.wait_for_shares(&[16], "the old one owns all").await;
        let new = relay(&source, SHORT).route("a", topic("story"), destination.publisher("a"));
        let new = new.route("b", topic("added"), destination.publisher("b")).start().await.unwrap();
        let relays = async || tests::equals(world.count("outbox_relays").await, 2);
        wait_until(SOON, "the new one waits for its turn", relays).await;

        for n in 1..=3 {
            world.emit("k", n).await;
            let tx = world.outbox.begin().await.unwrap();
            tx.emit(Added { key: "k".into(), n }).unwrap();
            tx.commit().await.unwrap();
        }
        destination.wait_for(3, SOON).await;
        // Its time is over, and it still waits while the other relay waits.
        wait_for_unrouted(&world, 3, "failing_us > 1000000").await;
        assert_eq!(old.stats().borrow().unrouted, 3);
        assert_eq!(world.count("outbox_dead_letters").await, 0, "the relay that takes them waits for its turn");

        old.shutdown(SOON).await.unwrap();
        world.drained(SOON).await;
        new.shutdown(SOON).await.unwrap();
        assert_eq!(numbers(&destination.of_route("a")), [1, 2, 3]);
        assert_eq!(numbers(&destination.of_route("b")), [1, 2, 3], "the new one begins with what waited, in order");
        assert_eq!((world.count("outbox_retries").await, world.count("outbox_dead_letters").await), (0, 0));
    }

    async fn what_waits_for_a_route_that_is_taken_back_waits_until_it_is_there_again(db: &TempDatabase) {
        let world = World::open(db).await;
        let fails = Arc::new(AtomicBool::new(true));
        let is_failing = fails.clone();
        let destination = Destination::scripted(move |sent, _| {
            let fails = sent.route == "b" && is_failing.load(Ordering::SeqCst);
            if fails { Answer::Transient } else { Answer::Confirmed }
        });
        let source = world.source();
        let policy = RetryPolicy::default().backoff(Duration::from_millis(20)).max_backoff(Duration::from_millis(200));
        let route = |name: &str| Route::new(name, everything(), destination.publisher(name)).retry(policy);
        let (old, new) = (|| relay(&source, SHORT).add_route(route("a")), || {
            relay(&source, SHORT).add_route(route("a")).add_route(route("b"))
        });
        let running = new().start().await.unwrap();
        let expected = keys(4, 5);
        world.emit_all(&expected).await;
        destination.wait_for(20, SOON).await;
        running.shutdown(SOON).await.unwrap();

        let running = old().start().await.unwrap();
        wait_for_unrouted(&world, 20, "due_at IS NOT NULL").await;
        running.shutdown(SOON).await.unwrap();
        assert_eq!(world.count("outbox_dead_letters").await, 0, "its route may come again");

        fails.store(false, Ordering::SeqCst);
        let running = new().start().await.unwrap();
        world.drained(SOON).await;
        running.shutdown(SOON).await.unwrap();
        for name in ["a", "b"] {
            Deliveries::of(&destination.of_route(name)).is_whole(&expected).is_in_order().repeats_at_most(0);
        }
        assert_eq!((world.count("outbox_retries").await, world.count("outbox_dead_letters").await), (0, 0));
    }

    async fn what_no_route_of_the_process_takes_is_refused_when_it_is_saved_with_the_nearest_topic(db: &TempDatabase) {
        let (world, destination) = (World::open(db).await, Destination::new());
        let added = || Added { key: "k".into(), n: 1 };
        let tx = world.outbox.begin().await.unwrap();
        tx.emit(added()).expect("no route is known in this process");
        tx.rollback().await.unwrap();
        let outbox: &Outbox = &world.outbox;
        let running = outbox_sea_orm::relay::Relay::builder(outbox)
            .route("a", topic("story"), destination.publisher("a"))
            .route("b", topic("adedd"), destination.publisher("b"))
            .start()
            .await
            .unwrap();
        let tx = world.outbox.begin().await.unwrap();
        let refused = tx.emit(added()).expect_err("no route takes it");
        let said = refused.to_string();
        match refused {
            OutboxError::Limit(LimitError::NoRoute { event_type, topic, nearest }) => {
                assert_eq!((event_type.as_str(), topic.as_str(), nearest.as_deref()), ("story.added", "added", Some("adedd")));
                assert!(said.contains("`added`") && said.contains("`adedd`"), "{said}");
            }
            other => panic!("{other:?}"),
        }
        tx.rollback().await.unwrap();
        world.emit("k", 1).await;
        destination.wait_for(1, SOON).await;
        running.shutdown(SOON).await.unwrap();
    }

    async fn a_relay_with_other_routes_waits_saying_for_whom_until_the_other_is_gone(db: &TempDatabase) {
        let (world, destination) = (World::open(db).await, Destination::new());
        let to = destination.listen().await;
        let config = |name: &str, routes: &[&str]| VictimConfig {
            url: db.url().to_owned(),
            name: name.to_owned(),
            lease_ms: 1_500,
            shutdown_ms: 10_000,
            routes: routes.iter().map(|route| VictimRoute::to(route, to)).collect(),
            ..VictimConfig::default()
        };
        let mut old = victim(&config("old", &["a"])).await;
        world.wait_for_shares(&[16], "the old one owns all").await;
        let rows = world.rows("SELECT DISTINCT owner FROM outbox_partitions").await;
        let owner: String = rows[0].try_get_by_index(0).unwrap();

        let mut new = victim(&config("new", &["a", "b"])).await;
        let line = new.wait_for_line(SOON, "waits until it is gone").await;
        assert!(line.contains(&owner), "it says for whom: {line}");
        world.emit_all(&keys(8, 5)).await;
        world.drained(SOON).await;
        assert!(destination.confirmed().iter().all(|sent| sent.from == "old"), "the new one still waits");
        assert_eq!(world.shares().await, [16]);

        assert_eq!(old.terminate(SOON).await.code(), Some(0));
        world.wait_for_shares(&[16], "the new one owns all").await;
        let rest = (0..8).map(|key| (format!("k{key}"), 6));
        for (key, n) in rest {
            world.emit(&key, n).await;
        }
        world.drained(LATE).await;
        assert_eq!(new.terminate(SOON).await.code(), Some(0));
        Deliveries::of(&destination.of_route("a")).is_whole(&keys(8, 6)).is_in_order().repeats_at_most(0);
        assert_eq!(destination.of_route("b").len(), 8, "the second route begins with the new relay");
    }
}
