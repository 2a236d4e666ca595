//! `/live` and `/ready`, and the health of each part.

use crate::world::{SOON, World};
use outbox_core::{
    relay::Relay,
    telemetry::{LeaseFact, Metrics},
    testing::Recorder,
    transport::everything,
};
use serde_json::{Value, json};
use tests::{equals, wait_until};

async fn shown(world: &World, path: &str) -> (u16, Value) {
    let (status, content_type, body) = world.get(path).await;
    assert_eq!(content_type, "application/json");
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_is_ready_while_its_parts_work_and_no_longer_live_when_one_has_ended() {
    let world = World::open().await;
    let well = json!({"live": true, "ready": true, "reasons": []});
    let ready = || async { equals(shown(&world, "/ready").await, (200, well.clone())) };
    wait_until(SOON, "all parts have reached the database", ready).await;
    assert_eq!(shown(&world, "/live").await, (200, well.clone()));
    for health in [world.relay.health(), world.consumer.health(), world.sagas.health()] {
        assert_eq!(serde_json::to_value(health).unwrap(), well);
    }

    world.sagas.shutdown(SOON).await.unwrap();
    let ended = json!({"part": "sagas", "lacks": "ended", "text": "its actors have ended"});
    let dead = json!({"live": false, "ready": false, "reasons": [ended]});
    assert_eq!(shown(&world, "/live").await, (503, dead.clone()));
    assert_eq!(shown(&world, "/ready").await, (503, dead));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_waits_for_its_turn_is_ready() {
    let world = World::open().await;
    let check = world.relay.health_check();
    let held = || async { equals(check.facts().lease, LeaseFact::Held) };
    wait_until(SOON, "the first relay has its lease", held).await;
    let second = Relay::builder(&world.outbox)
        .route("others", everything(), Recorder::new())
        .metrics(Metrics::new())
        .start()
        .await
        .unwrap();
    let waits = || async { equals(second.health_check().facts().lease, LeaseFact::WaitsForTurn) };
    wait_until(SOON, "the second one waits", waits).await;
    assert!(second.health().ready, "{:?}", second.health());
    second.shutdown(SOON).await.unwrap();
    world.stop().await;
}
