//! Failures change no key's order.

use crate::support::{Answer, Deliveries, Destination, LATE, LEASE, World, keys, relay};
use outbox_sea_orm::{
    failure::RetryPolicy,
    transport::{Route, everything},
};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

/// One publish in so many fails.
const FAILS: u32 = 20;

on_every_database! {
    async fn sixteen_keys_keep_their_order_through_transient_failures(db: &TempDatabase) {
        let world = World::open(db).await;
        let mut dice = fastrand::Rng::with_seed(5);
        let destination = Destination::scripted(move |_, _| match dice.u32(0..FAILS) {
            0 => Answer::Transient,
            _ => Answer::Confirmed,
        });
        let source = world.source();
        let route = Route::new("a", everything(), destination.publisher("a"));
        let policy = RetryPolicy::default().backoff(Duration::from_millis(10)).max_backoff(Duration::from_millis(50));
        let running = relay(&source, LEASE).add_route(route.retry(policy)).start().await.unwrap();
        let expected = keys(16, 1_000);
        world.emit_all(&expected).await;
        world.drained(LATE).await;
        running.shutdown(LATE).await.unwrap();
        Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order().repeats_at_most(0);
        assert_eq!((world.count("outbox_retries").await, world.count("outbox_dead_letters").await), (0, 0));
    }
}
