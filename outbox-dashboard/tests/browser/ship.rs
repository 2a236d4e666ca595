//! A saga of the service, and an instance of it in each state.

use crate::browser::SOON;
use outbox_sea_orm::{
    event::SagaId,
    prelude::*,
    saga::{SagaAdmin, SagaState},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{equals, wait_until};

/// What becomes of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fate {
    /// It is shipped.
    Shipped,
    /// Its payment is declined, and what was done is undone.
    Declined,
    /// The carrier takes nothing: it is stuck past its pivot.
    Stuck,
    /// The bank does not answer: it is tried again in an hour.
    Waiting,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ship {
    order: String,
    fate: Fate,
}

impl Ship {
    async fn pack(&mut self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn unpack(&mut self, (): (), _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn print_label(&self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn print_invoice(&self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn charge(&mut self, _: &StepContext) -> Result<(), StepError> {
        match self.fate {
            Fate::Declined => Err(StepError::abort("over the credit limit")),
            Fate::Waiting => Err(StepError::retry("the bank does not answer")),
            Fate::Shipped | Fate::Stuck => Ok(()),
        }
    }

    async fn hand_over(&mut self, _: &StepContext) -> Result<(), StepError> {
        match self.fate {
            Fate::Stuck => Err(StepError::retry("the carrier is closed")),
            _ => Ok(()),
        }
    }
}

pub(crate) fn definition() -> Saga<Ship> {
    let hourly = RetryPolicy::attempts(5, Duration::from_hours(1));
    Saga::builder("ship", 1)
        .step("pack", Ship::pack)
        .compensate(Ship::unpack)
        .parallel("papers")
        .branch("label", Ship::print_label)
        .branch("invoice", Ship::print_invoice)
        .step("charge", Ship::charge)
        .pivot()
        .retry(hourly)
        .step("hand-over", Ship::hand_over)
        .retry(RetryPolicy::attempts(1, Duration::from_millis(1)))
        .build()
}

/// The sagas of the story, by their correlation ids.
pub(crate) const STORY: [(&str, Fate); 4] = [
    ("order-5", Fate::Shipped),
    ("order-6", Fate::Declined),
    ("order-7", Fate::Stuck),
    ("order-11", Fate::Waiting),
];

/// Runs a saga of each fate as far as it gets.
pub(crate) async fn tell(outbox: &Outbox) {
    let sagas = Sagas::builder(outbox).register(definition()).poll(Duration::from_millis(50));
    let sagas = sagas.start().await.unwrap();
    for (order, fate) in STORY {
        let tx = outbox.begin().await.unwrap();
        let ship = Ship { order: order.to_owned(), fate };
        sagas.start(&tx, ship).correlation(order).await.unwrap();
        tx.commit().await.unwrap();
    }
    wait_until(SOON, "each saga is as far as it gets", async || {
        let counts = outbox.saga_counts().await.unwrap();
        equals((counts.stuck, counts.running), (1, 1))
    })
    .await;
    wait_until(SOON, "the bank was asked", async || {
        let waiting = saga_of(outbox, "order-11").await;
        let log = outbox.saga_log(waiting).await.unwrap();
        log.iter().any(|entry| entry.record.step() == Some("charge"))
    })
    .await;
    sagas.shutdown(SOON).await.unwrap();
}

/// Gives the saga of an order.
pub(crate) async fn saga_of(outbox: &Outbox, order: &str) -> SagaId {
    let filter = outbox_sea_orm::saga::SagaFilter {
        correlation: Some(order.to_owned()),
        ..Default::default()
    };
    let found = outbox.sagas(&filter, None, 2).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].id
}

/// Tells in which state the saga of an order is.
pub(crate) async fn state_of(outbox: &Outbox, order: &str) -> SagaState {
    let filter = outbox_sea_orm::saga::SagaFilter {
        correlation: Some(order.to_owned()),
        ..Default::default()
    };
    outbox.sagas(&filter, None, 2).await.unwrap()[0].instance.state
}
