//! The kit for users' own sagas, on every database.

use crate::{
    order::{PlaceOrder, place_order},
    world::World,
};
use outbox_core::{
    saga::draw_instance,
    testing::saga::{SagaKit, SagaRun},
};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

/// What is done is there once, what is undone is there with its counterpart.
async fn balanced(world: &World, run: &SagaRun) {
    let effects = world.effects(run.id).await;
    let has = |what: &str| effects.iter().any(|effect| effect == what);
    let ended = !has("release") || (has("reserve") && has("charge") == has("refund"));
    assert!(ended && (has("ship") || !has("thank")), "{effects:?} with {:?}", run.instance);
}

on_every_database! {
    async fn given_these_failures_that_end_is_expected(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let kit = SagaKit::new(&world.outbox, || place_order(1));
        let run = kit.given(PlaceOrder::number(1)).failing("charge", 2).run().await;
        run.expect_completed().expect_done(&["reserve", "charge", "ship", "thank"]).expect_skipped("wrap");
        assert_eq!(run.waited, Duration::from_millis(20 + 40), "the policy's waits, which did not pass");
        assert_eq!(run.data::<PlaceOrder>().notes, ["reserved"]);
        let run = kit.given(PlaceOrder::number(2)).aborting("ship").run().await;
        run.expect_compensated().expect_undone(&["charge", "reserve"]);
        let drawn = draw_instance(place_order(1).shape(), &run.instance, &run.log);
        assert!(drawn.contains("class s0 undone") && drawn.contains("undone, attempts 2"), "{drawn}");
        let run = kit.given(PlaceOrder::number(3)).aborting("ship").failing_compensation("charge", 9).run().await;
        run.expect_stuck_at("charge");
    }

    async fn every_step_and_every_compensation_fails_in_turn(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let kit = SagaKit::new(&world.outbox, || place_order(1));
        let order = |n| PlaceOrder { gift: n % 2 == 0, ..PlaceOrder::number(n) };
        let mut runs = 0;
        kit.fail_every_step(order, async |run| {
            runs += 1;
            balanced(&world, run).await;
        })
        .await;
        kit.fail_every_compensation(order, async |run| {
            runs += 1;
            balanced(&world, run).await;
        })
        .await;
        assert_eq!(runs, 5 + 2);
    }

    async fn the_process_ends_at_every_record_and_before_every_commit(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let kit = SagaKit::new(&world.outbox, || place_order(1));
        let mut runs = 0;
        kit.crash_after_every_record(PlaceOrder::number, async |run| {
            runs += 1;
            balanced(&world, run).await;
        })
        .await;
        kit.crash_before_every_commit(PlaceOrder::number, async |run| {
            runs += 1;
            balanced(&world, run).await;
        })
        .await;
        assert!(runs > 20, "{runs}");
    }
}
