//! The receiving service: it acknowledges every delivery manually, and reads the dead letters.

use crate::{server::Names, shop::TicketSold};
use anyhow::Context;
use outbox_amqp::{AmqpSubscriber, Death};
use outbox_sea_orm::{
    event::Message,
    transport::{Delivery, Subscriber},
};
use std::time::Duration;

/// How often a delivery is tried.
const ATTEMPTS: u32 = 3;
/// How long anything may take.
const SOON: Duration = Duration::from_secs(30);

/// Prints tickets until each of them is printed or rejected.
///
/// A `Consumer` does all of this by itself, with an inbox that suppresses repeats; this is what it
/// does underneath.
pub async fn print_tickets(
    mut tickets: AmqpSubscriber,
    number: usize,
) -> anyhow::Result<Vec<String>> {
    let (mut lines, mut ended) = (Vec::new(), 0);
    while ended < number {
        let delivery = next(&mut tickets).await?;
        let message = readable(&delivery)?;
        let ticket: TicketSold = serde_json::from_slice(&message.payload)?;
        // A quorum queue counts deliveries.
        let attempt = delivery.attempt.unwrap_or(1);
        let decision = if attempt > ticket.jams {
            delivery.ack().await?;
            "printed, ack"
        } else if attempt < ATTEMPTS {
            delivery.nack(true).await?;
            "the printer is jammed, nack and requeue"
        } else {
            delivery.reject("the printer is jammed").await?;
            "the printer is jammed for the third time, reject"
        };
        if !decision.ends_with("requeue") {
            ended += 1;
        }
        lines.push(format!("ticket {}  attempt {attempt}: {decision}", ticket.number));
    }
    // The server decides whether a returned ticket goes before or behind the others.
    lines.sort();
    Ok(lines)
}

/// Reads the dead letters.
pub async fn read_dead_letters(
    mut dead: AmqpSubscriber,
    names: &Names,
    number: usize,
) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    while lines.len() < number {
        let delivery = next(&mut dead).await?;
        let message = readable(&delivery)?;
        let deaths = Death::all_of(&message);
        let death = deaths.first().context("a dead letter has died")?;
        lines.push(format!(
            "{:<14}{:<10} in the queue {}, {} time",
            message.event_type,
            death.reason,
            names.short(&death.queue),
            death.count
        ));
        delivery.ack().await?;
    }
    lines.sort();
    Ok(lines)
}

async fn next(subscriber: &mut AmqpSubscriber) -> anyhow::Result<Delivery> {
    let delivery =
        tokio::time::timeout(SOON, subscriber.next()).await.context("nothing came")??;
    delivery.context("the subscription is closed")
}

fn readable(delivery: &Delivery) -> anyhow::Result<Message> {
    delivery.message.clone().map_err(anyhow::Error::msg)
}
