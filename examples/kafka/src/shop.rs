//! The sending service: events saved in transactions, and a relay that carries them to the topic.

use outbox_kafka::{KafkaPublisher, Topic};
use outbox_sea_orm::prelude::*;
use sea_orm::Database;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long anything may take.
const SOON: Duration = Duration::from_secs(30);

/// A ticket was sold, and has to be printed.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "ticket.sold", topic = "shop")]
pub struct TicketSold {
    #[outbox(key)]
    pub number: i64,
    /// How often printing it fails.
    pub jams: u32,
}

/// Sells, and gives what the broker confirmed.
pub async fn sell(
    brokers: &str,
    topic: &str,
    topics: impl IntoIterator<Item = Topic>,
) -> anyhow::Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let db =
        Database::connect(format!("sqlite://{}/shop.db?mode=rwc", folder.path().display())).await?;
    let outbox = Outbox::builder(db).source("shop").install().await?;

    let tx = outbox.begin().await?;
    for (number, jams) in [(1, 0), (2, 1), (3, 99)] {
        tx.emit(TicketSold { number, jams })?;
    }
    tx.commit().await?;

    let publisher = KafkaPublisher::new(brokers)?.topic(topic).declare(topics).build()?;
    let (confirm, mut confirmed) = mpsc::unbounded_channel();
    let relay = Relay::builder(&outbox)
        .route("kafka", everything(), publisher)
        // The counterpart of a producer's callback: the receipt has topic, partition and offset.
        .on_delivered(move |event, receipt| {
            let key = event.key.as_deref().unwrap_or("-");
            let place = receipt
                .destination
                .as_deref()
                .map_or("", |place| &place[place.rfind('[').unwrap_or(0)..]);
            let offset = receipt.position.unwrap_or_default();
            let _ = confirm.send(format!(
                "{}  key {key}  partition {place} offset {offset}",
                event.event_type
            ));
        })
        .on_failed(|event, error, attempt| {
            println!("  {} was not confirmed ({attempt}): {error}", event.event_type)
        })
        .start()
        .await?;
    let mut lines = Vec::new();
    while lines.len() < 3 {
        lines.extend(tokio::time::timeout(SOON, confirmed.recv()).await?);
    }
    relay.shutdown(SOON).await?;
    // Events of different keys are published at once, in no order.
    lines.sort();
    Ok(lines)
}
