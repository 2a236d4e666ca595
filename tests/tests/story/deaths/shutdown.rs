//! SIGTERM.

use crate::support::{
    Deliveries, Destination, LATE, LEASE, SOON, VictimConfig, VictimRoute, World, keys, relay,
    victim,
};
use outbox_sea_orm::transport::everything;
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

on_every_database! {
    async fn a_relay_that_is_asked_to_end_under_full_load_ends_in_time_and_repeats_nothing(db: &TempDatabase) {
        let (world, destination) = (World::open(db).await, Destination::new());
        let expected = keys(50, 400);
        world.emit_all(&expected).await;
        let route = VictimRoute { max_batch: 50, max_in_flight: 4, ..VictimRoute::to("a", destination.listen().await) };
        let within = Duration::from_secs(10);
        let config = VictimConfig {
            url: db.url().to_owned(),
            name: "first".into(),
            lease_ms: 3_000,
            shutdown_ms: 10_000,
            routes: vec![route],
            ..VictimConfig::default()
        };
        let mut process = victim(&config).await;
        destination.wait_for(2_000, SOON).await;
        let status = process.terminate(within).await;
        assert_eq!(status.code(), Some(0), "{:?}", process.finish(SOON).await.1);
        let delivered = i64::try_from(destination.count()).unwrap();
        let left = world.count("outbox_events").await;
        assert!(left > 0, "it was in the middle of its work");
        assert_eq!(delivered + left, 20_000, "what was delivered is settled");
        assert!(world.shares().await.is_empty(), "everything is handed back");

        // The next relay does not wait for the end of a lease.
        let source = world.source();
        let next = relay(&source, LEASE).route("a", everything(), destination.publisher("a")).start().await.unwrap();
        world.drained(LATE).await;
        next.shutdown(SOON).await.unwrap();
        Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order().repeats_at_most(0);
    }
}
