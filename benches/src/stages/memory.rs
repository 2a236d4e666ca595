//! The memory of a relay while it drains: it does not grow with the waiting events.

use crate::{
    environment::Environment,
    load::{
        checker::Checker,
        fill::{Waiting, fill_with},
        ours,
    },
    machine::own_memory,
    stages::drain::{check, per_second},
};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::time::interval;

/// The pause between two samples of the memory.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(10);

/// The memory of a drain.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// MiB by which the memory grew from a tenth of the drain to its highest before the last tenth.
    pub(crate) grown: f64,
    /// MiB at its highest, from the first event to the last.
    pub(crate) highest: f64,
    /// Events a second.
    pub(crate) rate: f64,
    /// Events that were published twice.
    pub(crate) duplicated: u64,
}

/// Drains once in this process, and samples its memory.
pub(crate) async fn run(waiting: Waiting) -> Result<Memory> {
    let environment = Environment::with_partitions(4, waiting.partitions).await?;
    fill_with(&environment, waiting).await?;
    let events = waiting.events;
    let checker = Checker::of(events, waiting.keys, waiting.payload);
    let samples = tokio::spawn(sample_memory(Arc::clone(&checker), u64::from(events)));
    let (took, meter) = ours::drain(&environment.outbox, events, &checker).await?;
    let faults = checker.faults();
    check(&environment, faults).await?;
    let (grown, highest) = samples.await??;
    eprintln!("ours  {:.0}/s, {faults}; {meter}", per_second(events, took));
    let (rate, duplicated) = (per_second(events, took), faults.duplicated);
    Ok(Memory { grown, highest, rate, duplicated })
}

async fn sample_memory(checker: Arc<Checker>, events: u64) -> Result<(f64, f64)> {
    let (mut first, mut before_last_tenth, mut highest) = (None, 0.0_f64, 0.0_f64);
    let mut samples = interval(SAMPLE_INTERVAL);
    loop {
        samples.tick().await;
        let (seen, memory) = (checker.distinct(), own_memory()?);
        highest = highest.max(memory);
        if seen >= events / 10 && seen < events / 10 * 9 {
            first.get_or_insert(memory);
            before_last_tenth = before_last_tenth.max(memory);
        }
        if seen >= events {
            let grown = first.map_or(0.0, |first| before_last_tenth - first);
            return Ok((grown, highest));
        }
    }
}
