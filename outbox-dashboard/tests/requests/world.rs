//! A service with dead letters and a stuck saga, and the dashboard over its database.

use crate::client::Client;
use outbox_core::{
    admin::{ActStore, AuditEntry},
    testing::Recorder,
    transport::PublishError,
};
use outbox_dashboard::{Access, Dashboard};
use outbox_sea_orm::{
    EnqueueOptions,
    admin::{AdminStore, OperatorNote},
    event::{LetterId, SagaId},
    prelude::*,
    saga::{SagaAdmin, SagaFilter},
};
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
    order: String,
    note: String,
}

impl OrderPlaced {
    pub(crate) fn of(order: &str) -> Self {
        Self { order: order.to_owned(), note: "two chairs".to_owned() }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ship {
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

/// The outbox of a service.
pub(crate) struct World {
    pub(crate) outbox: Outbox,
}

impl World {
    pub(crate) async fn open(temp: &TempDatabase) -> Self {
        let outbox = Outbox::builder(temp.connect().await).source("/shop").install().await;
        Self { outbox: outbox.unwrap() }
    }

    /// Opens an outbox in which so many letters of route `billing` are open.
    pub(crate) async fn with_letters(temp: &TempDatabase, letters: u64) -> Self {
        let world = Self::open(temp).await;
        for number in 0..letters {
            // Five failures in a row over several keys would open the breaker.
            let order = if letters < 5 { number } else { 0 };
            world.place(&format!("order-{order}"), "two chairs").await;
        }
        world.bury(letters).await;
        world
    }

    /// Saves an event.
    pub(crate) async fn place(&self, order: &str, note: &str) {
        let tx = self.outbox.begin().await.unwrap();
        tx.emit(OrderPlaced { order: order.to_owned(), note: note.to_owned() }).unwrap();
        tx.commit().await.unwrap();
    }

    /// Saves an event for tomorrow.
    pub(crate) async fn schedule(&self, order: &str) {
        let tx = self.outbox.begin().await.unwrap();
        let event = OrderPlaced { order: order.to_owned(), note: String::new() };
        let tomorrow = EnqueueOptions::new().deliver_in(Duration::from_hours(24));
        tx.emit_with(event, tomorrow).unwrap();
        tx.commit().await.unwrap();
    }

    /// Runs a relay whose destination fails, until so many letters are open.
    pub(crate) async fn bury(&self, letters: u64) {
        let fails = Recorder::scripted(|_, _| Err(PublishError::transient("503 from billing")));
        let once = RetryPolicy::attempts(1, Duration::from_millis(1));
        let route = Route::new("billing", topic("orders"), fails).retry(once);
        let relay = Relay::builder(&self.outbox).add_route(route).start().await.unwrap();
        wait_until(SOON, "the events are dead letters", async || {
            equals(self.outbox.stats().await.unwrap().dead, letters)
        })
        .await;
        relay.shutdown(SOON).await.unwrap();
    }

    /// Gives up an event with this content, beside the letters that are open; gives its letter.
    pub(crate) async fn letter_with(&self, content: Vec<u8>) -> LetterId {
        let open = self.outbox.stats().await.unwrap().dead + 1;
        self.place("order-0", "").await;
        self.bury(open).await;
        let first = self.outbox.newest_letter().await.unwrap().unwrap();
        let note = OperatorNote::new("ann", "another content");
        self.outbox.resend(first, content.into(), &note).await.unwrap().unwrap();
        self.bury(open).await;
        self.outbox.newest_letter().await.unwrap().unwrap()
    }

    /// Starts a saga that is stuck past its pivot.
    pub(crate) async fn stuck_saga(&self) -> SagaId {
        let sagas = Sagas::builder(&self.outbox).register(ship()).poll(Duration::from_millis(50));
        let sagas = sagas.start().await.unwrap();
        let tx = self.outbox.begin().await.unwrap();
        let order = Ship { order: "order-7".to_owned() };
        sagas.start(&tx, order).correlation("order-7").await.unwrap();
        tx.commit().await.unwrap();
        wait_until(SOON, "the saga is stuck", async || {
            equals(self.outbox.saga_counts().await.unwrap().stuck, 1)
        })
        .await;
        sagas.shutdown(SOON).await.unwrap();
        self.outbox.sagas(&SagaFilter::default(), None, 1).await.unwrap().remove(0).id
    }

    /// Asks the dashboard over this database, as the default access lets everybody in here.
    pub(crate) fn client(&self) -> Client {
        self.client_with(Access::loopback())
    }

    /// Asks a dashboard with these logins.
    pub(crate) fn client_with(&self, access: Access) -> Client {
        let dashboard = Dashboard::builder().database("orders", self.outbox.clone()).access(access);
        Client::of(dashboard.build().unwrap().router())
    }

    /// Reads the audit, the oldest first.
    pub(crate) async fn audit(&self) -> Vec<AuditEntry> {
        let mut rows = self.outbox.audit(None, 100).await.unwrap();
        rows.reverse();
        rows
    }

    /// Counts the open letters and the events that wait.
    pub(crate) async fn dead_and_pending(&self) -> (u64, u64) {
        let stats = self.outbox.stats().await.unwrap();
        (stats.dead, stats.pending)
    }
}
