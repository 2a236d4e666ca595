//! The receiving service: it acknowledges every delivery manually, and reads the dead letters.

use crate::shop::TicketSold;
use anyhow::Context;
use outbox_kafka::{DeadLetterCause, KafkaSubscriber};
use outbox_sea_orm::{
    event::Message,
    transport::{Delivery, Subscriber},
};
use std::{collections::HashMap, time::Duration};

/// How often a ticket is tried.
const ATTEMPTS: u32 = 3;
/// How long anything may take.
const SOON: Duration = Duration::from_secs(30);

/// Prints tickets until each of them is printed or rejected.
///
/// A `Consumer` does all of this by itself, with an inbox that suppresses repeats; this is what it
/// does underneath.
pub async fn print_tickets(
    mut tickets: KafkaSubscriber,
    number: usize,
) -> anyhow::Result<Vec<String>> {
    let (mut lines, mut ended) = (Vec::new(), 0);
    // Kafka does not count deliveries.
    let mut attempts: HashMap<i64, u32> = HashMap::new();
    while ended < number {
        let delivery = next(&mut tickets).await?;
        let message = readable(&delivery)?;
        let ticket: TicketSold = serde_json::from_slice(&message.payload)?;
        let attempt = attempts.entry(ticket.number).or_default();
        *attempt += 1;
        let decision = if *attempt > ticket.jams {
            delivery.ack().await?;
            "printed, ack"
        } else if *attempt < ATTEMPTS {
            delivery.nack(true).await?;
            "the printer is jammed, nack"
        } else {
            delivery.reject("the printer is jammed").await?;
            "the printer is jammed for the third time, reject"
        };
        if !decision.ends_with("nack") {
            ended += 1;
        }
        lines.push(format!("ticket {}  attempt {attempt}: {decision}", ticket.number));
    }
    // Partitions are read in any order.
    lines.sort();
    Ok(lines)
}

/// Reads the dead letters of a topic.
pub async fn read_dead_letters(
    mut dead: KafkaSubscriber,
    number: usize,
    of: &str,
) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    while lines.len() < number {
        let delivery = next(&mut dead).await?;
        let message = readable(&delivery)?;
        let cause = DeadLetterCause::of(&message).context("a dead letter says why")?;
        anyhow::ensure!(cause.topic == of, "it comes from {}", cause.topic);
        let key = message.key.as_deref().unwrap_or("-");
        lines
            .push(format!("{}  key {key}  {}: {}", message.event_type, cause.class, cause.message));
        delivery.ack().await?;
    }
    Ok(lines)
}

async fn next(subscriber: &mut KafkaSubscriber) -> anyhow::Result<Delivery> {
    let delivery =
        tokio::time::timeout(SOON, subscriber.next()).await.context("nothing came")??;
    delivery.context("the subscription is closed")
}

fn readable(delivery: &Delivery) -> anyhow::Result<Message> {
    delivery.message.clone().map_err(anyhow::Error::msg)
}
