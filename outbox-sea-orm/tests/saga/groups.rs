//! Parallel groups.

use crate::{
    order::{PlaceOrder, quickly},
    world::{SOON, World},
};
use outbox_core::saga::{SagaState, SagasError};
use outbox_sea_orm::prelude::*;
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

impl PlaceOrder {
    async fn ask_north(&self, cx: &StepContext) -> Result<i64, StepError> {
        self.does("north", cx).await?;
        Ok(self.order_id)
    }

    async fn ask_south(&self, cx: &StepContext) -> Result<String, StepError> {
        self.does("south", cx).await?;
        Ok(format!("south {}", self.order_id))
    }

    async fn leave_north(&mut self, offer: i64, cx: &StepContext) -> Result<(), StepError> {
        assert_eq!(offer, self.order_id);
        self.does("leave north", cx).await
    }

    async fn leave_south(&mut self, offer: String, cx: &StepContext) -> Result<(), StepError> {
        assert!(offer.starts_with("south"));
        self.does("leave south", cx).await
    }

    async fn choose(
        &mut self,
        (north, south): (i64, String),
        cx: &StepContext,
    ) -> Result<String, StepError> {
        self.does("choose", cx).await?;
        self.notes.push(format!("{north} or {south}"));
        Ok(south)
    }
}

fn offers() -> Saga<PlaceOrder> {
    Saga::builder("offers", 1)
        .parallel("ask")
        .branch("north", PlaceOrder::ask_north)
        .compensate(PlaceOrder::leave_north)
        .retry(quickly(3))
        .branch("south", PlaceOrder::ask_south)
        .compensate(PlaceOrder::leave_south)
        .retry(quickly(3))
        .merge("choose", PlaceOrder::choose)
        .retry(quickly(2))
        .build()
}

on_every_database! {
    async fn a_group_is_done_and_a_step_sees_what_it_returned(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(offers()).await;
        world.let_fail(2, "south", 2).await;
        let plain = world.start(&sagas, PlaceOrder::number(1)).await;
        let bumpy = world.start(&sagas, PlaceOrder::number(2)).await;
        for (n, saga) in [(1, plain), (2, bumpy)] {
            world.reaches(saga, SagaState::Completed).await;
            assert_eq!(world.effects(saga).await, ["choose", "north", "south"]);
            let data = world.texts(&format!("SELECT data FROM outbox_sagas WHERE correlation_id = 'order-{n}'")).await;
            assert!(data[0].contains(&format!("{n} or south {n}")), "{data:?}");
        }
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn what_of_a_group_was_done_is_undone(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(offers()).await;
        world.let_fail(1, "north", -1).await;
        world.let_fail(2, "choose", -1).await;
        let one_fails = world.start(&sagas, PlaceOrder::number(1)).await;
        let merge_fails = world.start(&sagas, PlaceOrder::number(2)).await;
        world.reaches(one_fails, SagaState::Compensated).await;
        assert_eq!(world.effects(one_fails).await, ["leave south", "south"]);
        world.reaches(merge_fails, SagaState::Compensated).await;
        assert_eq!(world.effects(merge_fails).await, ["leave north", "leave south", "north", "south"]);
        sagas.shutdown(SOON).await.unwrap();
    }
}

#[tokio::test]
async fn settings_that_no_step_of_a_group_may_have_are_faults() {
    let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await.unwrap())
        .install()
        .await
        .unwrap();
    let bad =
        Saga::builder("offers", 1).parallel("ask").branch("north", PlaceOrder::ask_north).pivot();
    let bad = bad.skip_if(|_| true).timeout(Duration::from_secs(1)).build();
    let started = Sagas::builder(&outbox).register(bad).start().await;
    let Err(SagasError::Invalid(faults)) = started else { panic!("it starts") };
    assert_eq!(faults.len(), 2, "{faults:?}");
}
