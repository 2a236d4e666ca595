//! A handler that crashes its process.

use crate::support::{
    LATE, LEASE, SOON, VictimConfig, VictimRoute, World, consuming, keys, relay, victim,
};
use outbox_sea_orm::transport::everything;
use tests::{databases::TempDatabase, holds_within, on_every_database, wait_until};

/// How many times the process may be started until its killer is a dead letter.
const MAX_STARTS: usize = 9;

on_every_database! {
    async fn a_handler_that_ends_its_process_is_buried_and_its_neighbours_are_handled(db: &TempDatabase) {
        let world = World::open(db).await;
        world.emit_all(&keys(4, 5)).await;
        let config = VictimConfig {
            url: db.url().to_owned(),
            name: "victim".into(),
            lease_ms: 1_000,
            shutdown_ms: 10_000,
            routes: vec![VictimRoute::inside("a")],
            handler: "killing".into(),
            ..VictimConfig::default()
        };
        let is_over = async || world.count("outbox_dead_letters").await > 0;
        let mut starts = 0;
        while !is_over().await {
            starts += 1;
            assert!(starts <= MAX_STARTS, "it is buried after a few crashes");
            let mut process = victim(&config).await;
            let mut alive = true;
            let ends = async || is_over().await || {
                alive = process.is_running();
                !alive
            };
            assert!(holds_within(SOON, ends).await, "it dies, or its killer is buried");
            process.kill().await;
        }
        // The next process handles the rest.
        let source = world.source();
        let (publisher, consumer) = consuming(&world, "killing").await;
        let next = relay(&source, LEASE).route("a", everything(), publisher).start().await.unwrap();
        world.drained(LATE).await;
        wait_until(SOON, "nothing is stored", async || tests::equals(world.count("outbox_deferred").await, 0)).await;
        next.shutdown(SOON).await.unwrap();
        consumer.shutdown(SOON).await.unwrap();
        let letters = world.letters().await;
        let found: Vec<_> = letters.iter().map(|l| (l.route.as_str(), l.reason.as_str(), l.payload.as_str())).collect();
        assert_eq!(found, [("story/killing", "crashed", r#"{"key":"k0","n":3}"#)]);
        assert_eq!((world.count("story_effects").await, world.count("outbox_inbox").await), (19, 20));
    }
}
