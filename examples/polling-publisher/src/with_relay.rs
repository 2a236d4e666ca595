//! The same with a relay, and an inbox at the destination.

use crate::{
    EVENTS, ORDERS,
    destination::{Answer, Destination, act},
};
use async_trait::async_trait;
use outbox_sea_orm::{
    prelude::*,
    relay::RelayStats,
    transport::{PublishError, Publisher, Receipt},
};
use sea_orm::{DatabaseConnection, DbErr};
use serde::{Deserialize, Serialize};
use std::{error::Error, time::Duration};

const SOON: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.changed", topic = "orders")]
struct OrderChanged {
    #[outbox(key)]
    order_id: i64,
    what: String,
}

async fn change(event: OrderChanged, cx: &HandlerContext) -> Result<(), DbErr> {
    act(&cx.tx, event.order_id, &event.what).await
}

/// The way to the destination, with its nights.
struct Way {
    to: Memory,
    destination: Destination,
}

#[async_trait]
impl Publisher for Way {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let event: OrderChanged = serde_json::from_slice(&message.payload)
            .map_err(|error| PublishError::permanent("no event of ours").caused_by(error))?;
        match self.destination.answer(event.order_id, &event.what) {
            Answer::Done => self.to.publish(message).await,
            Answer::Lost => {
                self.to.publish(message).await?;
                Err(PublishError::transient("the answer is lost"))
            }
            Answer::Down => Err(PublishError::unavailable("connection refused")),
            Answer::Refused => Err(PublishError::permanent("refused")),
        }
    }
}

/// Saves the events with their orders, and waits until each is delivered or waits behind a dead letter.
pub(crate) async fn run(
    db: &DatabaseConnection,
    destination: Destination,
) -> Result<(), Box<dyn Error>> {
    let outbox = Outbox::builder(db.clone()).source("shop").install().await?;
    let (publisher, subscriber) = Memory::channel();
    let consumer = Consumer::builder("destination", &outbox)
        .on("change", change)
        .subscribe(subscriber)
        .start()
        .await?;
    let route = Route::new("orders", topic("orders"), Way { to: publisher, destination });
    let relay = Relay::builder(&outbox).add_route(route.park_when_dead()).start().await?;

    let tx = outbox.begin().await?;
    for what in EVENTS {
        for order_id in 1..=ORDERS {
            tx.emit(OrderChanged { order_id, what: what.to_owned() })?;
        }
    }
    tx.commit().await?;

    let all = ORDERS.unsigned_abs() * EVENTS.len() as u64;
    // A dead letter, and the event of its order that waits behind it.
    let is_over = |stats: &RelayStats| stats.delivered + 2 * stats.dead == all;
    tokio::time::timeout(SOON, relay.stats().wait_for(is_over)).await??;
    relay.shutdown(Duration::from_secs(5)).await?;
    Ok(consumer.shutdown(Duration::from_secs(5)).await?)
}
