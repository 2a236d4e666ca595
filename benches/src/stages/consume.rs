//! Receiving from RabbitMQ with one INSERT a message: messages a second, beside a hand-written loop
//! without an inbox.

use super::drain::per_second;
use crate::{
    args::Sides,
    environment::Environment,
    figures::Rounds,
    load::{rabbit::Queue, receive},
};
use anyhow::{Result, ensure};

/// Messages of one transaction in the batched mode.
pub(crate) const BATCH: usize = 64;

/// Messages a second, round by round.
#[derive(Debug, Default)]
pub(crate) struct Consumed {
    pub(crate) baseline: Rounds,
    /// The baseline with a table of received messages.
    pub(crate) once: Rounds,
    pub(crate) ours: Rounds,
    pub(crate) batched: Rounds,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Baseline,
    Once,
    Ours,
    Batched,
}

/// Receives by all four in turn, in an order that changes from round to round.
pub(crate) async fn run(messages: u32, rounds: usize, sides: Sides) -> Result<Consumed> {
    let environment = Environment::shared(receive::AT_ONCE).await?;
    let mut consumed = Consumed::default();
    let mut order = [Side::Baseline, Side::Ours, Side::Batched, Side::Once];
    for _ in 0..rounds {
        for side in order {
            if if matches!(side, Side::Baseline | Side::Once) {
                sides.floor()
            } else {
                sides.ours()
            } {
                one(&environment, messages, side, &mut consumed).await?;
            }
        }
        order.rotate_left(1);
    }
    Ok(consumed)
}

async fn one(
    environment: &Environment,
    messages: u32,
    side: Side,
    consumed: &mut Consumed,
) -> Result<()> {
    environment.empty().await?;
    let queue = Queue::declare().await?;
    receive::fill(&queue, messages).await?;
    let (took, rounds) = match side {
        Side::Baseline => (
            receive::baseline(&environment.pool, &queue, messages, false).await?,
            &mut consumed.baseline,
        ),
        Side::Once => (
            receive::baseline(&environment.pool, &queue, messages, true).await?,
            &mut consumed.once,
        ),
        Side::Ours => (
            receive::by_consumer(&environment.outbox, &queue, messages, None).await?,
            &mut consumed.ours,
        ),
        Side::Batched => (
            receive::by_consumer(&environment.outbox, &queue, messages, Some(BATCH)).await?,
            &mut consumed.batched,
        ),
    };
    let rows = environment.number("SELECT count(*)::float8 FROM orders").await?;
    ensure!(rows == f64::from(messages), "void: {rows} rows of {messages} messages");
    // A quorum queue requeues messages that were acknowledged just before the connection's end, so
    // its count proves nothing.
    queue.delete().await?;
    let rate = per_second(messages, took);
    eprintln!("{side:?} {rate:.0}/s");
    rounds.push(rate);
    Ok(())
}
