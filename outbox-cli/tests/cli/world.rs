//! A database on which an event waits, others were given up, one is scheduled, and a saga is stuck.

use outbox_core::{testing::Recorder, transport::PublishError};
use outbox_sea_orm::{EnqueueOptions, admin::AdminStore, prelude::*, saga::SagaAdmin};
use sea_orm::DbErr;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{databases::TempDatabase, equals, wait_until};

/// Long enough for a busy machine; nothing waits that long when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders")]
pub(crate) struct OrderPlaced {
    #[outbox(key)]
    pub(crate) order: String,
    pub(crate) note: String,
}

/// An event whose content operators are not shown.
#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "card.added", topic = "orders", sensitive)]
struct CardAdded {
    #[outbox(key)]
    customer: String,
    number: String,
}

/// The number of a card, which nobody may see without a reason.
pub(crate) const CARD: &str = "canary-4111";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ship {
    order: String,
}

impl Ship {
    async fn pack(&mut self, _: &StepContext) -> Result<(), DbErr> {
        Ok(())
    }

    async fn hand_over(&mut self, _: &StepContext) -> Result<(), StepError> {
        Err(StepError::retry("the carrier is closed"))
    }
}

fn ship() -> Saga<Ship> {
    Saga::builder("ship", 1)
        .step("pack", Ship::pack)
        .pivot()
        .step("hand-over", Ship::hand_over)
        .retry(RetryPolicy::attempts(1, Duration::from_millis(1)))
        .build()
}

/// The outbox of a service, on a database of its own.
pub(crate) struct World {
    pub(crate) outbox: Outbox,
    pub(crate) url: String,
}

impl World {
    pub(crate) async fn open(temp: &TempDatabase) -> Self {
        let outbox = Outbox::builder(temp.connect().await).source("/shop").install().await.unwrap();
        Self { outbox, url: temp.url().to_owned() }
    }

    pub(crate) async fn place(&self, order: &str, note: &str) -> MessageId {
        let tx = self.outbox.begin().await.unwrap();
        let event = OrderPlaced { order: order.to_owned(), note: note.to_owned() };
        let id = tx.emit(event).unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// Saves an event whose content is hidden: it has the number of a [`CARD`].
    pub(crate) async fn add_card(&self) {
        let tx = self.outbox.begin().await.unwrap();
        let event = CardAdded { customer: "ann".to_owned(), number: CARD.to_owned() };
        tx.emit(event).unwrap();
        tx.commit().await.unwrap();
    }

    /// Saves an event for tomorrow.
    pub(crate) async fn schedule(&self, order: &str) -> MessageId {
        let tx = self.outbox.begin().await.unwrap();
        let event = OrderPlaced { order: order.to_owned(), note: String::new() };
        let tomorrow = EnqueueOptions::new().deliver_in(Duration::from_hours(24));
        let id = tx.emit_with(event, tomorrow).unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// Runs a relay whose destination rejects what has this error, until so many letters are open.
    pub(crate) async fn bury(&self, letters: u64, error: &'static str) {
        let rejects = Recorder::scripted(move |_, _| Err(PublishError::transient(error)));
        let route = Route::new("billing", topic("orders"), rejects)
            .retry(RetryPolicy::attempts(1, Duration::from_millis(1)));
        let relay = Relay::builder(&self.outbox).add_route(route).start().await.unwrap();
        wait_until(SOON, "the events are dead letters", async || {
            equals(self.outbox.stats().await.unwrap().dead, letters)
        })
        .await;
        relay.shutdown(SOON).await.unwrap();
    }

    /// Starts a saga that is stuck past its pivot.
    pub(crate) async fn get_stuck(&self, order: &str) {
        let before = self.outbox.saga_counts().await.unwrap().stuck;
        let sagas = Sagas::builder(&self.outbox).register(ship()).poll(Duration::from_millis(50));
        let sagas = sagas.start().await.unwrap();
        let tx = self.outbox.begin().await.unwrap();
        sagas.start(&tx, Ship { order: order.to_owned() }).correlation(order).await.unwrap();
        tx.commit().await.unwrap();
        wait_until(SOON, "the saga is stuck", async || {
            equals(self.outbox.saga_counts().await.unwrap().stuck, before + 1)
        })
        .await;
        sagas.shutdown(SOON).await.unwrap();
    }
}
