//! A redrive of many dead letters while the relay drains: letters a second, and the relay's rate
//! beside its rate alone.

use super::operate::fill_letters;
use crate::{environment::Environment, figures::Rounds, load::fill::fill};
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use outbox_core::{
    admin::{Act, ActStore, Applied, AuditOutcome, DeadLetterFilter, OperatorNote, apply},
    event::Message,
    relay::Relay,
    runtime::Shutdown,
    transport::{Batch, PublishError, Publisher, Receipt, everything},
};
use sea_orm::sqlx;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Waiting events unless the command line says otherwise: enough for the relay to be busy until the
/// redrive has ended.
pub(crate) const EVENTS: u32 = 4_000_000;
/// Letters of a redrive: one for so many waiting events.
const EVENTS_A_LETTER: u32 = 40;
/// The time limit of a drain.
const TIME_LIMIT: Duration = Duration::from_mins(10);

/// What a redrive took, round by round.
#[derive(Debug, Default)]
pub(crate) struct Redriven {
    pub(crate) letters: u32,
    /// Letters a second.
    pub(crate) redrive: Rounds,
    /// Events a second that the relay delivered while nothing else was done.
    pub(crate) alone: Rounds,
    /// Events a second that the relay delivered during the redrive.
    pub(crate) beside: Rounds,
}

/// A destination that takes everything.
struct Everywhere;

#[async_trait]
impl Publisher for Everywhere {
    async fn publish(&self, _: &Message) -> Result<Receipt, PublishError> {
        Ok(Receipt::new())
    }

    async fn publish_batch(&self, batch: &mut Batch) {
        for index in 0..batch.messages().len() {
            batch.done(index, Ok(Receipt::new()));
        }
    }
}

/// Drains waiting events alone and beside a redrive in turn, in an order that changes from round to
/// round.
pub(crate) async fn run(events: u32, rounds: usize) -> Result<Redriven> {
    ensure!(events >= EVENTS_A_LETTER * 200, "8,000 events at least");
    let environment = Environment::shared(8).await?;
    let mut redriven = Redriven { letters: events / EVENTS_A_LETTER, ..Redriven::default() };
    for round in 0..rounds {
        for is_alone in [round % 2 == 0, round % 2 == 1] {
            sqlx::raw_sql("TRUNCATE outbox_dead_letters RESTART IDENTITY")
                .execute(&environment.pool)
                .await?;
            fill(&environment, events).await?;
            if is_alone {
                redriven.alone.push(alone(&environment, events).await?);
            } else {
                beside(&environment, events, &mut redriven).await?;
            }
        }
    }
    Ok(redriven)
}

/// Drains without a redrive; gives events a second.
async fn alone(environment: &Environment, events: u32) -> Result<f64> {
    let begun = Instant::now();
    let relay = start(environment).await?;
    wait_for(&relay, u64::from(events)).await?;
    let rate = f64::from(events) / begun.elapsed().as_secs_f64();
    relay.shutdown(Duration::from_secs(10)).await?;
    eprintln!("alone  {rate:.0} events/s");
    Ok(rate)
}

/// Drains while an operator redrives all letters.
async fn beside(environment: &Environment, events: u32, redriven: &mut Redriven) -> Result<()> {
    fill_letters(environment, redriven.letters).await?;
    sqlx::raw_sql("VACUUM (ANALYZE) outbox_dead_letters").execute(&environment.pool).await?;
    let begun = Instant::now();
    let relay = start(environment).await?;
    let done = redrive(environment).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let delivered = relay.stats().borrow().delivered;
    ensure!(done == u64::from(redriven.letters), "{done} of {} letters", redriven.letters);
    ensure!(delivered < u64::from(events), "the relay had nothing to do: more --events");
    let (letters, rate) = (f64::from(redriven.letters) / seconds, delivered as f64 / seconds);
    eprintln!("beside {rate:.0} events/s, {letters:.0} letters/s");
    redriven.redrive.push(letters);
    redriven.beside.push(rate);
    wait_for(&relay, u64::from(events) + u64::from(redriven.letters)).await?;
    relay.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

/// Plans and applies a redrive of all letters; gives how many it redrove.
async fn redrive(environment: &Environment) -> Result<u64> {
    let (outbox, note) = (&environment.outbox, OperatorNote::new("bench", "a benchmark"));
    let plan = outbox.plan(Act::Redrive, &DeadLetterFilter::all(), true).await?;
    let mut last = Applied::default();
    let never = Shutdown::default();
    let outcome = apply(outbox, plan.id, &note, None, &never, |applied| last = applied).await?;
    ensure!(outcome == AuditOutcome::Done, "the redrive is {}", outcome.as_str());
    Ok(last.done)
}

async fn start(environment: &Environment) -> Result<Relay> {
    // The route of the letters.
    Ok(Relay::builder(&environment.outbox)
        .route("billing", everything(), Everywhere)
        .start()
        .await?)
}

async fn wait_for(relay: &Relay, delivered: u64) -> Result<()> {
    let mut stats = relay.stats();
    let waited = timeout(TIME_LIMIT, stats.wait_for(|s| s.delivered >= delivered)).await;
    waited.context("the relay stands still")??;
    Ok(())
}
