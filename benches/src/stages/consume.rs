//! Receiving from RabbitMQ with one INSERT a message: messages a second, beside a loop by hand without an inbox.

use super::drain::per_second;
use crate::{
    args::Sides,
    figures::Rounds,
    load::{rabbit::Queue, receive},
    place::Place,
};
use anyhow::{Result, ensure};

/// Messages of one transaction in the batched mode.
pub(crate) const BATCH: usize = 64;

/// Messages a second, round by round.
#[derive(Debug, Default)]
pub(crate) struct Consumed {
    pub(crate) by_hand: Rounds,
    /// By hand with a table of what was seen.
    pub(crate) once: Rounds,
    pub(crate) ours: Rounds,
    pub(crate) batched: Rounds,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    ByHand,
    Once,
    Ours,
    Batched,
}

/// Receives by all four in turn; which of them begins changes from round to round.
pub(crate) async fn run(messages: u32, rounds: usize, sides: Sides) -> Result<Consumed> {
    let place = Place::shared(receive::AT_ONCE).await?;
    let mut consumed = Consumed::default();
    let mut order = [Side::ByHand, Side::Ours, Side::Batched, Side::Once];
    for _ in 0..rounds {
        for side in order {
            if if matches!(side, Side::ByHand | Side::Once) { sides.floor() } else { sides.ours() }
            {
                one(&place, messages, side, &mut consumed).await?;
            }
        }
        order.rotate_left(1);
    }
    Ok(consumed)
}

async fn one(place: &Place, messages: u32, side: Side, consumed: &mut Consumed) -> Result<()> {
    place.empty().await?;
    let queue = Queue::declare().await?;
    receive::fill(&queue, messages).await?;
    let (took, rounds) = match side {
        Side::ByHand => {
            (receive::by_hand(&place.pool, &queue, messages, false).await?, &mut consumed.by_hand)
        }
        Side::Once => {
            (receive::by_hand(&place.pool, &queue, messages, true).await?, &mut consumed.once)
        }
        Side::Ours => {
            (receive::by_consumer(&place.outbox, &queue, messages, None).await?, &mut consumed.ours)
        }
        Side::Batched => (
            receive::by_consumer(&place.outbox, &queue, messages, Some(BATCH)).await?,
            &mut consumed.batched,
        ),
    };
    let rows = place.number("SELECT count(*)::float8 FROM orders").await?;
    ensure!(rows == f64::from(messages), "void: {rows} rows of {messages} messages");
    // A quorum queue takes back what was acknowledged just before the connection's end, so that counting it says nothing.
    queue.delete().await?;
    let rate = per_second(messages, took);
    eprintln!("{side:?} {rate:.0}/s");
    rounds.push(rate);
    Ok(())
}
