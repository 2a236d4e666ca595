//! A process is killed at every fault point in turn.

use crate::support::{
    Answer, Deliveries, Destination, LEASE, SOON, VictimConfig, VictimRoute, World, consuming,
    keys, relay, victim,
};
use futures_util::{FutureExt, StreamExt, stream};
use outbox_core::runtime::fault::FaultPoint;
use outbox_sea_orm::transport::everything;
use rustix::process::Signal;
use std::panic::AssertUnwindSafe;
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
    processes::Process,
    wait_until,
};

/// Scenarios that run at once; each mostly waits for a lease to end.
const AT_ONCE: usize = 5;
/// Events of each scenario.
const KEYS: u64 = 6;
const EACH: u64 = 20;

on_every_database! {
    async fn a_process_may_be_killed_at_every_fault_point(db: &TempDatabase) {
        let database = db.database();
        let scenes = stream::iter(FaultPoint::ALL).map(|point| async move {
            let played = AssertUnwindSafe(killed_at(point, database)).catch_unwind().await;
            (point, played.is_ok())
        });
        let failed: Vec<_> =
            scenes.buffer_unordered(AT_ONCE).filter(|(_, well)| std::future::ready(!well)).collect().await;
        assert!(failed.is_empty(), "{failed:?}");
    }
}

async fn killed_at(point: FaultPoint, database: Database) {
    let db = TempDatabase::create(database).await;
    let world = World::open(&db).await;
    let config = VictimConfig {
        url: db.url().to_owned(),
        name: "k0".into(),
        lease_ms: 1_000,
        ..VictimConfig::default()
    };
    // In the middle of the work, where it has a middle.
    let stops =
        |nth| VictimConfig { stops_at: Some((format!("{point:?}"), nth)), ..config.clone() };
    let mut letters = 0;
    match point {
        FaultPoint::BeforeCommit | FaultPoint::AfterCommit => {
            producer(
                &world,
                VictimConfig { produces: 9, ..stops(4) },
                if point == FaultPoint::AfterCommit { 4 } else { 3 },
            )
            .await;
        }
        FaultPoint::AfterTake => publisher(&world, stops(1), false).await,
        FaultPoint::AfterRead | FaultPoint::BeforePublish | FaultPoint::AfterPublish => {
            publisher(&world, stops(3), false).await;
        }
        FaultPoint::BeforeSettle
        | FaultPoint::AfterSettle
        | FaultPoint::BeforeRecord
        | FaultPoint::AfterRecord => {
            publisher(&world, stops(2), false).await;
        }
        FaultPoint::BeforeRelease => publisher(&world, stops(1), true).await,
        FaultPoint::BeforeInbox
        | FaultPoint::AfterHandler
        | FaultPoint::BeforeAck
        | FaultPoint::AfterAck => {
            consumer(&world, stops(7)).await;
        }
        FaultPoint::BeforeDefer
        | FaultPoint::AfterDefer
        | FaultPoint::AfterClaim
        | FaultPoint::BeforeReschedule
        | FaultPoint::BeforeDeadLetter
        | FaultPoint::AfterDeadLetter => {
            troubled_consumer(&world, stops(2)).await;
            letters = 4;
        }
        _ => panic!("no scene leads to {point:?}"),
    }
    assert_eq!(
        (world.count("outbox_retries").await, world.count("outbox_dead_letters").await),
        (0, letters)
    );
}

/// Waits until a victim has reached its fault point, and kills it there.
async fn kill_there(process: &mut Process) {
    process.wait_for_line(SOON, "reached").await;
    process.kill().await;
}

/// A producer that is killed leaves both fact and event, or neither.
async fn producer(world: &World, config: VictimConfig, committed: u64) {
    kill_there(&mut victim(&config).await).await;
    let destination = Destination::new();
    let source = world.source();
    let next = relay(&source, LEASE)
        .route("a", everything(), destination.publisher("a"))
        .start()
        .await
        .unwrap();
    // One more event, of a live producer, shows that the relay has read everything before it.
    world.emit("after", 1).await;
    destination.wait_for(usize::try_from(committed).unwrap() + 1, SOON).await;
    world.drained(SOON).await;
    next.shutdown(SOON).await.unwrap();
    let expected = [("k0".to_owned(), committed), ("after".to_owned(), 1)].into();
    Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order().repeats_at_most(0);
    assert_eq!(world.count("story_facts").await.cast_unsigned(), committed);
}

/// The next relay finishes the work of one that is killed; only its unsettled publishes are
/// repeated.
async fn publisher(world: &World, config: VictimConfig, ends: bool) {
    // Every fifth fails at first, so that the relay records failures.
    let destination = Destination::scripted(|sent, attempt| {
        let fails = attempt == 1 && sent.payload.contains("5}");
        if fails { Answer::Transient } else { Answer::Confirmed }
    });
    let route = VictimRoute::to("a", destination.listen().await);
    let expected = keys(KEYS, EACH);
    let emitted = usize::try_from(KEYS * EACH).unwrap();
    world.emit_all(&expected).await;
    let mut process =
        victim(&VictimConfig { routes: vec![route], shutdown_ms: 10_000, ..config }).await;
    if ends {
        destination.wait_for(10, SOON).await;
        process.signal(Signal::TERM);
    }
    kill_there(&mut process).await;
    // An event that is confirmed and not deleted was in flight.
    let left = usize::try_from(world.count("outbox_events").await).unwrap();
    let in_flight = (destination.count() + left).saturating_sub(emitted);

    let source = world.source();
    let next = relay(&source, LEASE)
        .route("a", everything(), destination.publisher("a"))
        .start()
        .await
        .unwrap();
    world.drained(SOON).await;
    next.shutdown(SOON).await.unwrap();
    Deliveries::of(&destination.confirmed())
        .is_whole(&expected)
        .is_in_order()
        .repeats_at_most(in_flight);
}

/// A consumer that is killed leaves both effect and inbox row, or neither; a repeat has no effect.
async fn consumer(world: &World, config: VictimConfig) {
    let (keys, each) = (4, 5);
    world.emit_all(&crate::support::keys(keys, each)).await;
    kill_there(
        &mut victim(&VictimConfig { routes: vec![VictimRoute::inside("a")], ..config }).await,
    )
    .await;
    let source = world.source();
    let (publisher, consumer) = consuming(world, "effect").await;
    let next = relay(&source, LEASE).route("a", everything(), publisher).start().await.unwrap();
    world.drained(SOON).await;
    // After a crash the consumer stores deliveries before it runs them.
    wait_until(SOON, "nothing is stored", async || {
        tests::equals(world.count("outbox_deferred").await, 0)
    })
    .await;
    next.shutdown(SOON).await.unwrap();
    consumer.shutdown(SOON).await.unwrap();
    let effects = world.number("SELECT COUNT(DISTINCT sample) FROM story_effects").await;
    let emitted = i64::try_from(keys * each).unwrap();
    assert_eq!(
        (effects, world.count("story_effects").await, world.count("outbox_inbox").await),
        (emitted, emitted, emitted)
    );
}

/// A consumer that is killed while it stores, claims, defers or writes a dead letter: each deferred
/// delivery is handled once, and each failed one has one dead letter.
async fn troubled_consumer(world: &World, config: VictimConfig) {
    let (keys, each) = (4, 5);
    world.emit_all(&crate::support::keys(keys, each)).await;
    let config = VictimConfig {
        routes: vec![VictimRoute::inside("a")],
        handler: "troubled".into(),
        ..config
    };
    kill_there(&mut victim(&config).await).await;
    let source = world.source();
    let (publisher, consumer) = consuming(world, "troubled").await;
    let next = relay(&source, LEASE).route("a", everything(), publisher).start().await.unwrap();
    world.drained(SOON).await;
    wait_until(SOON, "nothing is stored", async || {
        tests::equals(world.count("outbox_deferred").await, 0)
    })
    .await;
    next.shutdown(SOON).await.unwrap();
    consumer.shutdown(SOON).await.unwrap();
    let effects = world.number("SELECT COUNT(DISTINCT sample) FROM story_effects").await;
    assert_eq!(
        (effects, world.count("story_effects").await, world.count("outbox_inbox").await),
        (16, 16, 20)
    );
    let letters = world.letters().await;
    assert_eq!(
        letters.iter().filter(|l| l.route == "story/troubled" && l.reason == "rejected").count(),
        4
    );
}
