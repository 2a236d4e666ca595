//! A consumer is killed at each of its fault points while its messages are at the broker.

use crate::support::{Broker, SOON, VictimConfig, World, consumer, message, victim};
use futures_util::{FutureExt, StreamExt, stream};
use outbox_core::runtime::fault::FaultPoint;
use std::{future::ready, panic::AssertUnwindSafe};
use tests::{
    databases::{Database, TempDatabase},
    on_every_database, wait_until,
};

/// Scenarios that run at once.
const AT_ONCE: usize = 3;
/// Keys of each scenario, and messages of each key.
const KEYS: u64 = 4;
const EACH: u64 = 5;

on_every_database! {
    async fn a_consumer_of_a_broker_may_be_killed_at_every_fault_point(db: &TempDatabase) {
        let database = db.database();
        let scenes: Vec<_> = FaultPoint::ALL.into_iter().filter_map(|point| Some((point, scene(point)?))).collect();
        assert_eq!(scenes.len(), 10, "those from the inbox on");
        let played = stream::iter(scenes).map(|(point, scene)| async move {
            let played = AssertUnwindSafe(killed_at(point, scene, database)).catch_unwind().await;
            (point, played.is_ok())
        });
        let failed: Vec<_> = played.buffer_unordered(AT_ONCE).filter(|(_, well)| ready(!well)).collect().await;
        assert!(failed.is_empty(), "{failed:?}");
    }
}

/// The handler that reaches a fault point, and the reach at which the consumer is killed.
fn scene(point: FaultPoint) -> Option<(&'static str, u64)> {
    match point {
        FaultPoint::BeforeInbox
        | FaultPoint::AfterHandler
        | FaultPoint::BeforeAck
        | FaultPoint::AfterAck => Some(("effect", 7)),
        FaultPoint::BeforeDefer
        | FaultPoint::AfterDefer
        | FaultPoint::AfterClaim
        | FaultPoint::BeforeReschedule
        | FaultPoint::BeforeDeadLetter
        | FaultPoint::AfterDeadLetter => Some(("troubled", 2)),
        _ => None,
    }
}

/// The next consumer gets the rest, and repeats no effect.
async fn killed_at(point: FaultPoint, (handler, nth): (&str, u64), database: Database) {
    let db = TempDatabase::create(database).await;
    let (world, broker) = (World::open(&db).await, Broker::new());
    let messages: Vec<_> =
        (1..=EACH).flat_map(|n| (0..KEYS).map(move |key| message(&format!("k{key}"), n))).collect();
    broker.publish(&messages).await;
    let config = VictimConfig {
        url: db.url().to_owned(),
        queue: Some(broker.queue.clone()),
        handler: handler.to_owned(),
        stops_at: Some((format!("{point:?}"), nth)),
        ..VictimConfig::default()
    };
    let mut first = victim(&config).await;
    first.wait_for_line(SOON, "reached").await;
    first.kill().await;

    let next =
        consumer(&world.outbox, handler).subscribe(broker.subscriber()).start().await.unwrap();
    let all = i64::try_from(KEYS * EACH).unwrap();
    let is_over = async || {
        world.count("outbox_inbox").await == all && world.count("outbox_deferred").await == 0
    };
    wait_until(SOON, "all are handled or given up", is_over).await;
    wait_until(SOON, "none is under way", async || {
        tests::equals(next.stats().borrow().in_flight, 0)
    })
    .await;
    next.shutdown(SOON).await.unwrap();
    broker.is_empty().await;
    let effects = world.number("SELECT COUNT(DISTINCT sample) FROM story_effects").await;
    // One of five events is rejected.
    let given_up = if handler == "troubled" { i64::try_from(KEYS).unwrap() } else { 0 };
    assert_eq!((effects, world.count("story_effects").await), (all - given_up, all - given_up));
    let letters = world.letters().await;
    assert!(
        letters.iter().all(|l| l.route == "story/troubled" && l.reason == "rejected"),
        "{letters:?}"
    );
    assert_eq!(i64::try_from(letters.len()).unwrap(), given_up);
}
