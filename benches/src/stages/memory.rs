//! The memory of a relay while it drains: it does not grow with what waits.

use crate::{
    load::{checker::Checker, fill::fill, ours},
    machine::own_memory,
    place::Place,
    stages::drain::{check, per_second},
};
use anyhow::Result;
use std::{sync::Arc, time::Duration};
use tokio::time::interval;

/// Between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What was seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// MiB by which the memory grew from a tenth of the drain to its highest before the last tenth.
    pub(crate) grown: f64,
    /// MiB at its highest.
    pub(crate) highest: f64,
    /// Events a second.
    pub(crate) rate: f64,
}

/// Drains once in this process, and looks.
pub(crate) async fn run(events: u32) -> Result<Memory> {
    let place = Place::shared(4).await?;
    fill(&place, events).await?;
    let checker = Checker::new(events);
    let looks = tokio::spawn(look(Arc::clone(&checker), u64::from(events)));
    let (took, told) = ours::drain(&place.outbox, events, &checker).await?;
    let faults = checker.faults();
    check(&place, faults).await?;
    let (grown, highest) = looks.await??;
    eprintln!("ours  {:.0}/s, {faults}; {told}", per_second(events, took));
    Ok(Memory { grown, highest, rate: per_second(events, took) })
}

async fn look(checker: Arc<Checker>, events: u64) -> Result<(f64, f64)> {
    let (mut first, mut highest) = (None, 0.0_f64);
    let mut looks = interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        let seen = checker.distinct();
        if seen >= events / 10 * 9 {
            return Ok((highest - first.unwrap_or(highest), highest));
        }
        if seen >= events / 10 {
            let memory = own_memory()?;
            first.get_or_insert(memory);
            highest = highest.max(memory);
        }
    }
}
