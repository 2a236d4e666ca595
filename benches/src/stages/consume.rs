//! Receiving from RabbitMQ with one INSERT a message: messages a second, beside hand-written loops
//! with and without an inbox.

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
    /// Ours with all defaults.
    pub(crate) defaults: Rounds,
    /// Ours, one by one.
    pub(crate) ours: Rounds,
    pub(crate) batched: Rounds,
}

/// Who receives, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Baseline,
    Once,
    Defaults,
    OneByOne,
    Batched,
}

impl Way {
    /// All of them, in the order of the first round.
    const ALL: [Self; 5] =
        [Self::Baseline, Self::OneByOne, Self::Batched, Self::Once, Self::Defaults];
    /// Those of which the gate of promises has a figure.
    pub(crate) const PROMISED: [Self; 4] =
        [Self::Baseline, Self::OneByOne, Self::Once, Self::Defaults];

    /// Lists those of a side.
    pub(crate) fn of(sides: Sides) -> Vec<Self> {
        let runs = |way: &Self| if way.is_ours() { sides.ours() } else { sides.floor() };
        Self::ALL.into_iter().filter(runs).collect()
    }

    pub(super) fn is_ours(self) -> bool {
        !matches!(self, Self::Baseline | Self::Once)
    }

    /// How our consumer handles; `None` for a loop by hand.
    pub(super) fn handling(self) -> Option<receive::Handling> {
        match self {
            Self::Baseline | Self::Once => None,
            Self::Defaults => Some(receive::Handling::Defaults),
            Self::OneByOne => Some(receive::Handling::OneByOne),
            Self::Batched => Some(receive::Handling::Batched(BATCH)),
        }
    }
}

impl Consumed {
    pub(super) fn push(&mut self, way: Way, rate: f64) {
        match way {
            Way::Baseline => &mut self.baseline,
            Way::Once => &mut self.once,
            Way::Defaults => &mut self.defaults,
            Way::OneByOne => &mut self.ours,
            Way::Batched => &mut self.batched,
        }
        .push(rate);
    }
}

/// Receives in all ways in turn, in an order that changes from round to round.
pub(crate) async fn run(messages: u32, rounds: usize, ways: &[Way]) -> Result<Consumed> {
    let environment = Environment::shared(receive::AT_ONCE).await?;
    let (mut consumed, mut order) = (Consumed::default(), ways.to_vec());
    for _ in 0..rounds {
        for way in order.iter().copied() {
            one(&environment, messages, way, &mut consumed).await?;
        }
        order.rotate_left(1);
    }
    Ok(consumed)
}

async fn one(
    environment: &Environment,
    messages: u32,
    way: Way,
    consumed: &mut Consumed,
) -> Result<()> {
    environment.empty().await?;
    let queue = Queue::declare().await?;
    receive::fill(&queue, messages).await?;
    let took = match way.handling() {
        Some(handling) => {
            receive::by_consumer(&environment.outbox, &queue, messages, handling).await?
        }
        None => receive::baseline(&environment.pool, &queue, messages, way == Way::Once).await?,
    };
    check(environment, messages, way).await?;
    // A quorum queue requeues messages that were acknowledged just before the connection's end, so
    // its count proves nothing.
    queue.delete().await?;
    let rate = per_second(messages, took);
    eprintln!("{way:?} {rate:.0}/s");
    consumed.push(way, rate);
    Ok(())
}

/// Fails where a message was lost or had its effect twice, or where ours handled those of a key out
/// of order: the figure is void then. The loops by hand keep no order.
pub(super) async fn check(environment: &Environment, messages: u32, way: Way) -> Result<()> {
    let rows = environment.number("SELECT count(*)::float8 FROM orders").await?;
    let different =
        environment.number("SELECT count(DISTINCT (customer, total))::float8 FROM orders").await?;
    let wanted = f64::from(messages);
    ensure!(
        (rows, different) == (wanted, wanted),
        "void: {rows} rows, {different} different ones, of {messages} messages"
    );
    let reordered = "SELECT count(*)::float8 FROM (SELECT total < lag(total) OVER (PARTITION BY customer \
                     ORDER BY id) AS is_back FROM orders) AS o WHERE is_back";
    let reordered = environment.number(reordered).await?;
    ensure!(!way.is_ours() || reordered == 0.0, "void: {reordered} messages out of order");
    Ok(())
}
