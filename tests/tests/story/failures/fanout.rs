//! One event to two routes.

use crate::support::{
    Answer, Deliveries, Destination, LATE, LEASE, SOON, VictimConfig, VictimRoute, World, keys,
    relay, victim,
};
use async_trait::async_trait;
use outbox_sea_orm::{
    event::Message,
    failure::RetryPolicy,
    transport::{Limits, PublishError, Publisher, Receipt, Route, everything},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tests::{databases::TempDatabase, on_every_database, wait_until};
use tokio::sync::Semaphore;

/// Publishes to a destination as often as the test permits.
struct Gated<P> {
    to: P,
    gate: Arc<Semaphore>,
}

#[async_trait]
impl<P: Publisher> Publisher for Gated<P> {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        self.gate.acquire().await.unwrap().forget();
        self.to.publish(message).await
    }
}

on_every_database! {
    async fn of_two_routes_the_one_that_works_delivers_once_also_over_a_takeover(db: &TempDatabase) {
        let world = World::open(db).await;
        let broken = Arc::new(AtomicBool::new(true));
        let is_broken = broken.clone();
        let destination = Destination::scripted(move |sent, _| {
            let fails = sent.route == "broken" && is_broken.load(Ordering::SeqCst);
            if fails { Answer::Transient } else { Answer::Confirmed }
        });
        let expected = keys(8, 25);
        world.emit_all(&expected).await;
        let to = destination.listen().await;
        let routes = vec![VictimRoute::to("works", to), VictimRoute::to("broken", to)];
        let config = VictimConfig { url: db.url().to_owned(), name: "first".into(), lease_ms: 1_000, routes, ..VictimConfig::default() };
        let mut process = victim(&config).await;
        destination.wait_for(200, SOON).await;
        // The working route has confirmed all of them, and the relay has recorded that.
        wait_until(SOON, "the confirmed route is remembered", async || {
            world.number("SELECT COUNT(*) FROM outbox_retries WHERE route = 'works' AND state = 'done'").await == 200
        })
        .await;
        process.kill().await;

        let source = world.source();
        let policy = RetryPolicy::default().backoff(Duration::from_millis(20)).max_backoff(Duration::from_millis(200));
        let route = |name: &str| Route::new(name, everything(), destination.publisher(name)).retry(policy);
        let next = relay(&source, LEASE).add_route(route("works")).add_route(route("broken")).start().await.unwrap();
        wait_until(SOON, "the next relay tries", async || tests::equals(next.stats().borrow().open_breakers, 1)).await;
        assert_eq!(destination.count(), 200, "nothing is repeated where it was confirmed");
        broken.store(false, Ordering::SeqCst);
        world.drained(LATE).await;
        next.shutdown(SOON).await.unwrap();
        Deliveries::of(&destination.of_route("works")).is_whole(&expected).is_in_order().repeats_at_most(0);
        Deliveries::of(&destination.of_route("broken")).is_whole(&expected).is_in_order().repeats_at_most(0);
        assert_eq!((world.count("outbox_retries").await, world.count("outbox_dead_letters").await), (0, 0));
    }

    async fn a_relay_that_ends_while_events_are_confirmed_on_one_route_alone_repeats_nothing(db: &TempDatabase) {
        let (world, destination, gate) = (World::open(db).await, Destination::new(), Arc::new(Semaphore::new(0)));
        let source = world.source();
        let routes = || {
            let slow = Gated { to: destination.publisher("slow"), gate: gate.clone() };
            let one_by_one = Limits::default().max_batch(1).max_in_flight(1);
            relay(&source, LEASE)
                .route("quick", everything(), destination.publisher("quick"))
                .add_route(Route::new("slow", everything(), slow).limits(one_by_one))
        };
        let first = routes().start().await.unwrap();
        world.wait_for_shares(&[16], "it owns all").await;
        let expected = keys(8, 25);
        world.emit_all(&expected).await;
        destination.wait_for(200, SOON).await;
        // The publish in flight ends as soon as the relay is asked to end; all others wait behind
        // it.
        let (ended, ()) = tokio::join!(first.shutdown(SOON), async { gate.add_permits(1) });
        ended.unwrap();
        assert_eq!(destination.of_route("slow").len(), 1);

        gate.add_permits(1_000);
        let next = routes().start().await.unwrap();
        world.drained(LATE).await;
        next.shutdown(SOON).await.unwrap();
        for name in ["quick", "slow"] {
            Deliveries::of(&destination.of_route(name)).is_whole(&expected).is_in_order().repeats_at_most(0);
        }
        assert_eq!((world.count("outbox_retries").await, world.count("outbox_dead_letters").await), (0, 0));
    }
}
