//! One event to two routes.

use crate::stage::{Answer, Destination, LATE, LEASE, Part, RoutePart, SOON, Story, World, keys, relay, victim};
use outbox_sea_orm::{
    failure::RetryPolicy,
    transport::{Route, everything},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tests::{databases::TempDatabase, on_every_database, wait_until};

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
        world.tell_all(&expected).await;
        let to = destination.listen().await;
        let routes = vec![RoutePart::to("works", to), RoutePart::to("broken", to)];
        let part = Part { url: db.url().to_owned(), name: "first".into(), lease_ms: 1_000, routes, ..Part::default() };
        let mut process = victim(&part).await;
        destination.wait_for(200, SOON).await;
        // The route that works is done with all of them, and that is written down.
        wait_until(SOON, "the confirmed route is remembered", async || {
            world.number("SELECT COUNT(*) FROM outbox_retries WHERE route = 'works' AND state = 'done'").await == 200
        })
        .await;
        process.kill().await;

        let source = world.source();
        let policy = RetryPolicy::default().backoff(Duration::from_millis(20)).max_backoff(Duration::from_millis(200));
        let route = |name: &str| Route::new(name, everything(), destination.publisher(name)).retry(policy);
        let next = relay(&source, LEASE).add_route(route("works")).add_route(route("broken")).start().await.unwrap();
        wait_until(SOON, "the next relay tries", async || next.stats().borrow().open_breakers == 1).await;
        assert_eq!(destination.count(), 200, "nothing is repeated where it was confirmed");
        broken.store(false, Ordering::SeqCst);
        world.drained(LATE).await;
        next.shutdown(SOON).await.unwrap();
        Story::of(&destination.of_route("works")).is_whole(&expected).is_in_order().repeats_at_most(0);
        Story::of(&destination.of_route("broken")).is_whole(&expected).is_in_order().repeats_at_most(0);
        assert_eq!((world.count("outbox_retries").await, world.count("outbox_dead_letters").await), (0, 0));
    }
}
