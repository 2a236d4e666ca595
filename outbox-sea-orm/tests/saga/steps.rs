//! Steps, retries, compensations, deadlines.

use crate::{
    order::{PlaceOrder, place_order, quickly},
    world::{SOON, World},
};
use outbox_core::saga::{SagaState, StepState};
use outbox_sea_orm::prelude::*;
use sea_orm::{ConnectionTrait, DbErr};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

on_every_database! {
    async fn every_step_is_done_once_with_its_record_and_its_events(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        let saga = world.start(&sagas, PlaceOrder::number(1)).await;
        let gift = world.start(&sagas, PlaceOrder { gift: true, ..PlaceOrder::number(2) }).await;
        world.reaches(saga, SagaState::Completed).await;
        world.reaches(gift, SagaState::Completed).await;
        let kinds = ["started", "done reserve", "skipped_by_condition wrap", "done charge", "done ship", "done thank", "completed"];
        assert_eq!(world.kinds(saga).await, kinds);
        assert_eq!(world.effects(saga).await, ["charge", "reserve", "ship", "thank"]);
        assert_eq!(world.effects(gift).await, ["charge", "reserve", "ship", "thank", "wrap"]);
        assert_eq!(world.number("SELECT COUNT(*) FROM outbox_events WHERE event_type = 'order.shipped'").await, 2);
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_step_that_fails_is_tried_again_and_its_effect_is_there_once(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        world.let_fail(1, "charge", 2).await;
        let saga = world.start(&sagas, PlaceOrder::number(1)).await;
        world.reaches(saga, SagaState::Completed).await;
        assert_eq!(world.kinds(saga).await.iter().filter(|k| *k == "failed charge").count(), 2);
        assert_eq!(world.effects(saga).await, ["charge", "reserve", "ship", "thank"]);
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_step_that_gives_up_has_what_was_done_undone_in_reverse(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        // The last attempt fails too; and one says at once that it never will.
        world.let_fail(1, "ship", 99).await;
        world.let_fail(2, "ship", -1).await;
        world.let_fail(3, "reserve", -1).await;
        let mut ids = Vec::new();
        for n in 1..=3 {
            ids.push(world.start(&sagas, PlaceOrder::number(n)).await);
        }
        for id in &ids[..2] {
            let instance = world.reaches(*id, SagaState::Compensated).await;
            assert_eq!(world.effects(*id).await, ["charge", "refund", "release", "reserve"]);
            let kinds = world.kinds(*id).await;
            assert_eq!(kinds[kinds.len() - 4..], ["compensation_started", "undone charge", "undone reserve", "compensated"]);
            assert!(instance.reason.unwrap().contains("ship"));
        }
        world.reaches(ids[2], SagaState::Compensated).await;
        assert_eq!(world.kinds(ids[2]).await, ["started", "compensation_started", "compensated"]);
        assert!(world.effects(ids[2]).await.is_empty());
        assert_eq!(world.number("SELECT COUNT(*) FROM outbox_events").await, 0);
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_compensation_is_tried_again_and_then_the_saga_is_stuck(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        for n in [1, 2] {
            world.let_fail(n, "ship", -1).await;
        }
        world.let_fail(1, "refund", 2).await;
        world.let_fail(2, "refund", 99).await;
        let (healed, stuck) =
            (world.start(&sagas, PlaceOrder::number(1)).await, world.start(&sagas, PlaceOrder::number(2)).await);
        world.reaches(healed, SagaState::Compensated).await;
        assert_eq!(world.effects(healed).await, ["charge", "refund", "release", "reserve"]);
        let instance = world.reaches(stuck, SagaState::Stuck).await;
        assert_eq!(instance.stuck_at.as_deref(), Some("charge"));
        assert_eq!(instance.step("charge").unwrap().state, StepState::CompensationFailing);
        assert_eq!(world.effects(stuck).await, ["charge", "reserve"]);
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn past_the_pivot_a_saga_only_goes_forward(temp: &TempDatabase) {
        async fn never(_: &mut PlaceOrder, _: &StepContext) -> Result<(), StepError> {
            Err(StepError::abort("never"))
        }
        let world = World::open(temp).await;
        let definition = Saga::builder("place-order", 1)
            .step("reserve", PlaceOrder::reserve)
            .compensate(PlaceOrder::release)
            .step("ship", PlaceOrder::ship)
            .pivot()
            .step("never", never)
            .deadline(Duration::from_millis(1))
            .build();
        // Its deadline passes when it is past its pivot.
        let patient = Saga::builder("place-order", 1)
            .step("ship", PlaceOrder::ship)
            .pivot()
            .step("late", pass_the_deadline)
            .step("thank", PlaceOrder::thank)
            .deadline(Duration::from_secs(3_600))
            .build();
        let sagas = world.sagas(definition).await;
        let late = world.start(&sagas, PlaceOrder::number(1)).await;
        world.reaches(late, SagaState::Compensated).await;
        sagas.shutdown(SOON).await.unwrap();
        let sagas = world.sagas(patient).await;
        let patient = world.start(&sagas, PlaceOrder::number(2)).await;
        world.reaches(patient, SagaState::Completed).await;
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_deadline_ends_the_wait_for_a_retry(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let definition = Saga::builder("place-order", 1)
            .step("reserve", PlaceOrder::reserve)
            .retry(RetryPolicy::attempts(9, Duration::from_secs(3_600)).max_backoff(Duration::from_secs(3_600)))
            .deadline(Duration::from_millis(400))
            .build();
        let sagas = world.sagas(definition).await;
        world.let_fail(1, "reserve", 1).await;
        let saga = world.start(&sagas, PlaceOrder::number(1)).await;
        let instance = world.reaches(saga, SagaState::Compensated).await;
        assert_eq!(instance.reason.as_deref(), Some("its deadline has passed"));
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn panics_timeouts_and_rejected_commits_are_failures(temp: &TempDatabase) {
        async fn panics(order: &mut PlaceOrder, cx: &StepContext) -> Result<(), StepError> {
            order.does("panics", cx).await?;
            panic!("no such thing");
        }
        async fn hangs(order: &mut PlaceOrder, cx: &StepContext) -> Result<(), StepError> {
            order.does("hangs", cx).await?;
            std::future::pending().await
        }
        let world = World::open(temp).await;
        let with = |name: &str| Saga::builder(name, 1).step("reserve", PlaceOrder::reserve).compensate(PlaceOrder::release);
        let panicking = with("place-order").step("bad", panics).retry(quickly(2)).build();
        let sagas = world.sagas(panicking).await;
        let saga = world.start(&sagas, PlaceOrder::number(1)).await;
        let instance = world.reaches(saga, SagaState::Compensated).await;
        assert!(instance.reason.unwrap().contains("no such thing"));
        sagas.shutdown(SOON).await.unwrap();
        let hanging = with("place-order").step("bad", hangs).timeout(Duration::from_millis(50)).retry(quickly(2)).build();
        let sagas = world.sagas(hanging).await;
        let saga = world.start(&sagas, PlaceOrder::number(2)).await;
        let instance = world.reaches(saga, SagaState::Compensated).await;
        assert!(instance.reason.unwrap().contains("its time limit of 50ms"));
        assert_eq!(world.effects(saga).await, ["release", "reserve"]);
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_step_and_a_compensation_that_never_return_are_dropped_at_the_coordinators_limit(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let first = Saga::<PlaceOrder>::builder("hanging", 1).step("hang", hangs_once).compensate_without_output(hangs_once);
        let definition = first.step("abort", aborts).build();
        let builder = Sagas::builder(&world.outbox).register(definition).step_timeout(Duration::from_millis(300));
        let sagas = builder.poll(Duration::from_millis(50)).start().await.unwrap();
        let saga = world.start(&sagas, PlaceOrder::number(1)).await;
        world.reaches(saga, SagaState::Compensated).await;
        let kinds = world.kinds(saga).await;
        assert_eq!(kinds, [
            "started", "failed hang", "done hang", "compensation_started", "failed hang", "undone hang", "compensated",
        ]);
        let stats = *sagas.stats().borrow();
        assert_eq!((stats.timed_out, stats.slow), (2, 0));
        sagas.shutdown(SOON).await.unwrap();
    }
}

/// Puts the deadline of its saga into the past.
async fn pass_the_deadline(_: &mut PlaceOrder, cx: &StepContext) -> Result<(), DbErr> {
    let passed = "UPDATE outbox_sagas SET deadline_at = 1 WHERE deadline_at IS NOT NULL";
    cx.tx.execute_unprepared(passed).await.map(drop)
}

/// Never returns at its first attempt.
async fn hangs_once(_: &mut PlaceOrder, cx: &StepContext) -> Result<(), StepError> {
    if cx.attempt() == 1 {
        std::future::pending::<()>().await;
    }
    Ok(())
}

async fn aborts(_: &mut PlaceOrder, _: &StepContext) -> Result<(), StepError> {
    Err(StepError::abort("never"))
}
