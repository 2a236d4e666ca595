//! The sending service: events saved in transactions, and a relay that carries them to the exchange.

use crate::server::Names;
use outbox_amqp::AmqpPublisher;
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

/// An offer without a consumer: its time to live runs out.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "offer.made", topic = "shop")]
pub struct OfferMade {
    #[outbox(key)]
    pub customer: String,
}

/// A price changed.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "price.changed", topic = "shop")]
pub struct PriceChanged {
    #[outbox(key)]
    pub article: String,
    pub cents: i64,
}

/// Sells, and gives what the server confirmed.
pub async fn sell(url: &str, names: &Names) -> anyhow::Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let db =
        Database::connect(format!("sqlite://{}/shop.db?mode=rwc", folder.path().display())).await?;
    let outbox = Outbox::builder(db).source("shop").install().await?;

    let tx = outbox.begin().await?;
    for (number, jams) in [(1, 0), (2, 1), (3, 99)] {
        tx.emit(TicketSold { number, jams })?;
    }
    tx.emit(OfferMade { customer: "ada".to_owned() })?;
    for cents in [995, 990] {
        tx.emit(PriceChanged { article: "ticket".to_owned(), cents })?;
    }
    tx.commit().await?;

    // The routing key is the event's type by default.
    let publisher =
        AmqpPublisher::new(url)?.exchange(names.exchange()).declare(names.topology()).build()?;
    let (confirm, mut confirmed) = mpsc::unbounded_channel();
    let relay = Relay::builder(&outbox)
        .route("rabbit", topic("shop"), publisher)
        .on_delivered(move |event, _receipt| {
            let _ = confirm.send(format!(
                "{}  key {}",
                event.event_type,
                event.key.as_deref().unwrap_or("-")
            ));
        })
        .on_failed(|event, error, attempt| {
            println!("  {} was not confirmed ({attempt}): {error}", event.event_type)
        })
        .start()
        .await?;
    let mut lines = Vec::new();
    while lines.len() < 6 {
        lines.extend(tokio::time::timeout(SOON, confirmed.recv()).await?);
    }
    relay.shutdown(SOON).await?;
    // Events of different keys are published at once, in no order.
    lines.sort();
    Ok(lines)
}
