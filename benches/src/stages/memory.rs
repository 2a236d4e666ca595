//! The memory of a relay while it drains: it does not grow with the waiting events.

use crate::{
    environment::Environment,
    load::{checker::Checker, fill::fill, ours},
    machine::own_memory,
    stages::drain::{check, per_second},
};
use anyhow::Result;
use std::{sync::Arc, time::Duration};
use tokio::time::interval;

/// The pause between two samples of the memory.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(10);

/// The memory of a drain.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// MiB by which the memory grew from a tenth of the drain to its highest before the last tenth.
    pub(crate) grown: f64,
    /// MiB at its highest.
    pub(crate) highest: f64,
    /// Events a second.
    pub(crate) rate: f64,
}

/// Drains once in this process, and samples its memory.
pub(crate) async fn run(events: u32) -> Result<Memory> {
    let environment = Environment::shared(4).await?;
    fill(&environment, events).await?;
    let checker = Checker::new(events);
    let samples = tokio::spawn(sample_memory(Arc::clone(&checker), u64::from(events)));
    let (took, meter) = ours::drain(&environment.outbox, events, &checker).await?;
    let faults = checker.faults();
    check(&environment, faults).await?;
    let (grown, highest) = samples.await??;
    eprintln!("ours  {:.0}/s, {faults}; {meter}", per_second(events, took));
    Ok(Memory { grown, highest, rate: per_second(events, took) })
}

async fn sample_memory(checker: Arc<Checker>, events: u64) -> Result<(f64, f64)> {
    let (mut first, mut highest) = (None, 0.0_f64);
    let mut samples = interval(SAMPLE_INTERVAL);
    loop {
        samples.tick().await;
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
