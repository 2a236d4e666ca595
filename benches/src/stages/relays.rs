//! Relays in several processes on one outbox: waiting events a second that they finish together.

use super::drain::{check, per_second};
use crate::{
    environment::Environment,
    figures::Rounds,
    load::{
        checker::Checker,
        fill::{Waiting, fill_with, hide, reveal},
        processes::RelayProcesses,
    },
};
use anyhow::{Result, ensure};
use std::time::Instant;

/// Waiting events, and the relay processes that drain them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) waiting: Waiting,
    pub(crate) relays: usize,
}

/// Drains each of the loads in turn, in an order that changes from round to round; gives events a
/// second of each.
pub(crate) async fn run(loads: &[Load], rounds: usize) -> Result<Vec<Rounds>> {
    let mut rates = vec![Rounds::default(); loads.len()];
    for round in 0..rounds {
        for turn in 0..loads.len() {
            let at = (round + turn) % loads.len();
            rates[at].push(one(loads[at]).await?);
        }
    }
    Ok(rates)
}

/// Drains once. The time runs from the instant at which all events are there, when each relay has
/// its share of the partitions, until the last one is finished in the database.
async fn one(Load { waiting, relays }: Load) -> Result<f64> {
    let environment = Environment::with_partitions(4, waiting.partitions).await?;
    fill_with(&environment, waiting).await?;
    hide(&environment).await?;
    let mut processes = RelayProcesses::start(&environment, relays, waiting).await?;
    reveal(&environment).await?;
    let begun = Instant::now();
    environment.outbox.wake();
    let ended = processes.finish(waiting.events.into()).await?;
    let checker = Checker::of(waiting.events, waiting.keys, waiting.payload);
    processes.close(&checker).await?;
    let faults = checker.faults();
    check(&environment, faults).await?;
    ensure!(faults.duplicated == 0, "the drain is void: {faults}");
    let rate = per_second(waiting.events, ended - begun);
    eprintln!("{relays} relays {rate:.0}/s, {faults}, {waiting:?}");
    Ok(rate)
}
