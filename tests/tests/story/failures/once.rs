//! At most once.

use crate::support::{
    Answer, Deliveries, Destination, LEASE, SOON, VictimConfig, VictimRoute, World, keys, relay,
    victim,
};
use futures_util::{StreamExt, stream};
use outbox_core::runtime::fault::FaultPoint;
use outbox_sea_orm::{
    admin::{AdminStore, DeadLetterFilter, OperatorNote},
    failure::DeadLetter,
    transport::{Route, everything},
};
use std::collections::HashSet;
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
};

const POINTS: [FaultPoint; 7] = [
    FaultPoint::AfterTake,
    FaultPoint::AfterRead,
    FaultPoint::BeforePublish,
    FaultPoint::AfterPublish,
    FaultPoint::BeforeSettle,
    FaultPoint::AfterSettle,
    FaultPoint::BeforeRelease,
];

on_every_database! {
    async fn an_at_most_once_route_never_repeats_whoever_is_killed(db: &TempDatabase) {
        let database = db.database();
        stream::iter(POINTS).for_each_concurrent(4, |point| killed_at(point, database)).await;
    }

    async fn a_failure_on_an_at_most_once_route_is_a_letter(db: &TempDatabase) {
        let world = World::open(db).await;
        let destination = Destination::scripted(|sent, _| {
            let fails = sent.key.as_deref() == Some("k1");
            if fails { Answer::Transient } else { Answer::Confirmed }
        });
        world.emit_all(&keys(3, 4)).await;
        let source = world.source();
        let route = Route::new("a", everything(), destination.publisher("a")).at_most_once();
        let running = relay(&source, LEASE).add_route(route).start().await.unwrap();
        world.drained(SOON).await;
        world.wait_for_letters(4, SOON).await;
        let first = letters(&world).await;
        // Redriven and rejected once more, each is a new letter that names the old one.
        let ids: Vec<_> = first.iter().map(|letter| letter.id).collect();
        assert_eq!(world.outbox.redrive(&ids, &OperatorNote::new("ann", "again")).await.unwrap(), ids);
        world.wait_for_letters(8, SOON).await;
        running.shutdown(SOON).await.unwrap();
        let previous: HashSet<_> = letters(&world).await.iter().map(|letter| letter.previous.unwrap()).collect();
        assert_eq!(previous, ids.into_iter().collect());
        let mut expected = keys(3, 4);
        expected.remove("k1");
        Deliveries::of(&destination.confirmed()).is_whole(&expected).repeats_at_most(0);
        for letter in world.letters().await {
            assert_eq!((letter.reason.as_str(), letter.key.as_deref()), ("not_retried", Some("k1")));
            assert!(letter.errors.contains("not now"), "{letter:?}");
        }
        assert_eq!(world.count("outbox_dead_letters").await, 8);
    }
}

/// Reads the unresolved dead letters.
async fn letters(world: &World) -> Vec<DeadLetter> {
    world.outbox.dead_letters(&DeadLetterFilter::all(), None, 100).await.unwrap()
}

async fn killed_at(point: FaultPoint, database: Database) {
    let db = TempDatabase::create(database).await;
    let (world, destination) = (World::open(&db).await, Destination::new());
    world.emit_all(&keys(6, 20)).await;
    let route =
        VictimRoute { at_most_once: true, ..VictimRoute::to("a", destination.listen().await) };
    let in_the_middle = !matches!(point, FaultPoint::AfterTake | FaultPoint::BeforeRelease);
    let config = VictimConfig {
        url: db.url().to_owned(),
        name: "first".into(),
        lease_ms: 1_000,
        shutdown_ms: 10_000,
        routes: vec![route],
        stops_at: Some((format!("{point:?}"), if in_the_middle { 2 } else { 1 })),
        ..VictimConfig::default()
    };
    let mut process = victim(&config).await;
    if point == FaultPoint::BeforeRelease {
        destination.wait_for(10, SOON).await;
        process.signal(rustix::process::Signal::TERM);
    }
    process.wait_for_line(SOON, "reached").await;
    process.kill().await;
    let source = world.source();
    let route = Route::new("a", everything(), destination.publisher("a")).at_most_once();
    let next = relay(&source, LEASE).add_route(route).start().await.unwrap();
    world.drained(SOON).await;
    next.shutdown(SOON).await.unwrap();
    Deliveries::of(&destination.confirmed()).repeats_at_most(0);
    assert!(destination.count() > 0, "{point:?}: the next relay published what was left");
}
