//! Starts, definitions, versions.

use crate::{
    order::{PlaceOrder, place_order},
    world::{SOON, World},
};
use outbox_core::saga::{SagaFault, SagaState, SagasError, draw};
use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database, wait_until};

on_every_database! {
    async fn two_starts_under_one_correlation_id_are_one_saga(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        let first = world.start(&sagas, PlaceOrder::number(1)).await;
        assert_eq!(world.start(&sagas, PlaceOrder::number(1)).await, first);
        if temp.database() != tests::databases::Database::Sqlite {
            // Both are open at the same time: the second one waits for the first.
            let (one, other) = (world.outbox.begin().await.unwrap(), world.outbox.begin().await.unwrap());
            let made = sagas.start(&one, PlaceOrder::number(2)).correlation("same").await.unwrap();
            let second = async {
                let found = sagas.start(&other, PlaceOrder::number(2)).correlation("same").await.unwrap();
                other.commit().await.unwrap();
                found
            };
            let (committed, found) = tokio::join!(one.commit(), second);
            committed.unwrap();
            assert!(made.is_new() && !found.is_new() && found.id() == made.id());
        }
        let tx = world.outbox.begin().await.unwrap();
        let nameless = (sagas.start(&tx, PlaceOrder::number(3)).await.unwrap(), sagas.start(&tx, PlaceOrder::number(3)).await.unwrap());
        assert_ne!(nameless.0.id(), nameless.1.id());
        tx.commit().await.unwrap();
        world.reaches(first, SagaState::Completed).await;
        assert_eq!(world.effects(first).await.len(), 4);
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_start_that_is_rolled_back_starts_nothing(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        let tx = world.outbox.begin().await.unwrap();
        sagas.start(&tx, PlaceOrder::number(1)).correlation("order-1").await.unwrap();
        tx.rollback().await.unwrap();
        assert_eq!(world.number("SELECT COUNT(*) FROM outbox_sagas").await, 0);
        assert_eq!(world.number("SELECT COUNT(*) FROM outbox_saga_log").await, 0);
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn sagas_finish_on_their_version_and_a_missing_one_waits_and_is_said(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let fast = |saga: Saga<PlaceOrder>| Sagas::builder(&world.outbox).register(saga).poll(Duration::from_millis(50));
        let one = fast(place_order(1)).start().await.unwrap();
        one.shutdown(SOON).await.unwrap();
        let old = world.start(&one, PlaceOrder::number(1)).await;

        let two = fast(place_order(2)).start().await.unwrap();
        let new = world.start(&two, PlaceOrder::number(2)).await;
        world.reaches(new, SagaState::Completed).await;
        assert_eq!(world.state(old).await, SagaState::Running);
        let stats = two.stats();
        wait_until(SOON, "its definition is missed", async || tests::equals(stats.borrow().missing_definitions, 1)).await;
        two.shutdown(SOON).await.unwrap();

        let both = fast(place_order(1)).register(place_order(2)).start().await.unwrap();
        world.reaches(old, SagaState::Completed).await;
        assert_eq!(world.view(old).await.definition.1, 1);
        let third = world.start(&both, PlaceOrder::number(3)).await;
        assert_eq!(world.view(third).await.definition.1, 2);
        both.shutdown(SOON).await.unwrap();
    }

    async fn a_saga_whose_step_the_definition_has_lost_is_stuck(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let with = |step: &str| {
            let two = Saga::builder("place-order", 1).step(step, PlaceOrder::reserve).step("charge", PlaceOrder::charge);
            two.retry(RetryPolicy::attempts(2, Duration::from_secs(3_600)).max_backoff(Duration::from_secs(3_600))).build()
        };
        let sagas = world.sagas(with("reserve")).await;
        world.let_fail(1, "charge", 1).await;
        let saga = world.start(&sagas, PlaceOrder::number(1)).await;
        wait_until(SOON, "three records are written", async || tests::equals(world.log(saga).await.len(), 3)).await;
        sagas.shutdown(SOON).await.unwrap();
        world.run("UPDATE outbox_sagas SET due_at = 1").await;
        let sagas = world.sagas(with("renamed")).await;
        let instance = world.reaches(saga, SagaState::Stuck).await;
        assert!(instance.reason.unwrap().contains("has no step `reserve`"));
        sagas.shutdown(SOON).await.unwrap();
    }
}

#[derive(Serialize, Deserialize)]
struct Other;

async fn step(_: &mut Other, _: &StepContext) -> Result<i32, StepError> {
    Ok(1)
}

async fn undo(_: &mut Other, _: i32, _: &StepContext) -> Result<(), StepError> {
    Ok(())
}

#[tokio::test]
async fn all_faults_of_all_definitions_are_told_at_once() {
    let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await.unwrap())
        .install()
        .await
        .unwrap();
    let bad = Saga::builder("", 0)
        .step("one", step)
        .pivot()
        .compensate(undo)
        .step("one", step)
        .pivot()
        .timeout(Duration::ZERO)
        .deadline(Duration::ZERO)
        .build();
    let twice = || Saga::builder("twice", 1).step("one", step).build();
    let started = Sagas::builder(&outbox)
        .register(bad)
        .register(twice())
        .register(twice())
        .lease(Duration::ZERO)
        .start()
        .await;
    let Err(SagasError::Invalid(faults)) = started else { panic!("it starts") };
    let has = |wanted: fn(&SagaFault) -> bool| assert!(faults.iter().any(wanted), "{faults:?}");
    has(|f| matches!(f, SagaFault::Name(_)));
    has(|f| matches!(f, SagaFault::Version(_)));
    has(|f| matches!(f, SagaFault::DuplicateStep { .. }));
    has(|f| matches!(f, SagaFault::TwoPivots { .. }));
    has(|f| matches!(f, SagaFault::CompensationPastPivot { .. }));
    has(|f| matches!(f, SagaFault::ZeroDuration { what: "timeout", .. }));
    has(|f| matches!(f, SagaFault::ZeroDuration { what: "deadline", .. }));
    has(|f| matches!(f, SagaFault::DuplicateSaga { .. }));
    has(|f| matches!(f, SagaFault::SameData { .. }));
    has(|f| matches!(f, SagaFault::Setting(_)));
}

#[tokio::test]
async fn a_start_says_what_is_wrong_with_it() {
    let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await.unwrap())
        .install()
        .await
        .unwrap();
    let sagas = Sagas::builder(&outbox).register(place_order(1)).start().await.unwrap();
    let tx = outbox.begin().await.unwrap();
    assert!(matches!(sagas.start(&tx, Other).await, Err(SagasError::NotRegistered(_))));
    for bad in ["", "a\nb", &"x".repeat(201)] {
        let refused = sagas.start(&tx, PlaceOrder::number(1)).correlation(bad).await;
        assert!(matches!(refused, Err(SagasError::Correlation)), "{bad}");
    }
    drop(tx);
    sagas.shutdown(SOON).await.unwrap();
}

#[test]
fn a_definition_is_drawn() {
    let drawn = draw(place_order(1).shape());
    for line in [
        "flowchart TD",
        "start_([\"place-order v1\"])",
        "s0[\"reserve\"]",
        "start_ --> s0",
        "s0 -.-> c0[/\"undo reserve\"/]",
        "s3{{\"ship\"}}",
        "s4 --> end_([\"completed\"])",
    ] {
        assert!(drawn.lines().any(|l| l.trim() == line), "{line} in\n{drawn}");
    }
}
