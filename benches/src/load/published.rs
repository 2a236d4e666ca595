//! What relays of several processes have published, in the order in which they did.

use super::{checker::Checker, fill::number_of};
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use outbox_core::{
    event::Message,
    transport::{Batch, PublishError, Publisher, Receipt},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

/// Bytes of an event in a file.
const ENTRY: usize = 16;
/// The number of what is no event of the benchmark.
const DAMAGED: u32 = u32::MAX;

/// One published event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Microseconds since 1970, by the machine's clock, which its processes share.
    at_us: u64,
    id: u32,
    key: u32,
}

impl Entry {
    fn of(message: &Message, at_us: u64, payload: usize) -> Self {
        let id = message.sequence.and_then(|id| u32::try_from(id.0).ok());
        let key = message.key.as_deref().and_then(number_of);
        let key = key.and_then(|key| u32::try_from(key).ok());
        match (id, key) {
            (Some(id), Some(key)) if message.payload.len() == payload => Self { at_us, id, key },
            _ => Self { at_us, id: DAMAGED, key: 0 },
        }
    }

    fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..8].copy_from_slice(&self.at_us.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.id.to_le_bytes());
        bytes[12..].copy_from_slice(&self.key.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (at, rest) = bytes.split_at_checked(8)?;
        let (id, key) = rest.split_at_checked(4)?;
        Some(Self {
            at_us: u64::from_le_bytes(at.try_into().ok()?),
            id: u32::from_le_bytes(id.try_into().ok()?),
            key: u32::from_le_bytes(key.try_into().ok()?),
        })
    }
}

/// The events that this process has published.
pub(crate) struct Published {
    /// Bytes of each payload.
    payload: usize,
    entries: Mutex<Vec<Entry>>,
}

impl Published {
    /// Expects payloads of so many bytes.
    pub(crate) fn new(payload: usize) -> Arc<Self> {
        Arc::new(Self { payload, entries: Mutex::default() })
    }

    fn add(&self, messages: &[Message]) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // Behind the lock: within a process the times are in the order of the entries.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        entries.extend(messages.iter().map(|message| Entry::of(message, now, self.payload)));
    }

    /// Writes them to a file.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_bytes()).collect();
        fs::write(file, bytes).with_context(|| format!("{} cannot be written", file.display()))
    }
}

/// A destination that remembers each event and does nothing else.
pub(crate) struct LoggingPublisher(pub(crate) Arc<Published>);

#[async_trait]
impl Publisher for LoggingPublisher {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        self.0.add(std::slice::from_ref(message));
        Ok(Receipt::new())
    }

    async fn publish_batch(&self, batch: &mut Batch) {
        let messages = batch.messages();
        self.0.add(&messages);
        for index in 0..messages.len() {
            batch.done(index, Ok(Receipt::new()));
        }
    }
}

/// Records what all processes have written, in the order of its times.
pub(crate) fn check(files: &[PathBuf], checker: &Checker) -> Result<()> {
    let mut processes = Vec::new();
    for file in files {
        let bytes = fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        ensure!(bytes.len().is_multiple_of(ENTRY), "{} has a part of an event", file.display());
        processes.push(bytes.chunks_exact(ENTRY).filter_map(Entry::from_bytes).collect());
    }
    record(processes, checker);
    Ok(())
}

fn record(processes: Vec<Vec<Entry>>, checker: &Checker) {
    let mut all = processes.concat();
    // Stable: entries of one process with the same time keep their order.
    all.sort_by_key(|entry| entry.at_us);
    for Entry { id, key, .. } in all {
        checker.note(id.into(), usize::try_from(key).ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::checker::Faults;

    fn entry(at_us: u64, id: u32, key: u32) -> Entry {
        Entry { at_us, id, key }
    }

    fn faults(events: u32, processes: Vec<Vec<Entry>>) -> Faults {
        let checker = Checker::of(events, 4, 0);
        record(processes, &checker);
        checker.faults()
    }

    #[test]
    fn a_key_that_goes_from_one_process_to_another_keeps_its_order() {
        let exact = Faults { lost: 0, duplicated: 0, reordered: 0, damaged: 0 };
        let first = vec![entry(1, 1, 0), entry(1, 2, 0), entry(2, 3, 1)];
        assert_eq!(faults(4, vec![vec![entry(3, 4, 0)], first.clone()]), exact);
        // The other process published a later event of the key before the first one had ended.
        let overtaken = faults(4, vec![vec![entry(0, 4, 0)], first.clone()]);
        assert_eq!(overtaken, Faults { reordered: 1, ..exact });
        let twice = faults(4, vec![vec![entry(3, 2, 0)], first]);
        assert_eq!(twice, Faults { lost: 1, duplicated: 1, ..exact });
        let damaged = faults(1, vec![vec![entry(1, 1, 0), entry(2, DAMAGED, 0)]]);
        assert_eq!(damaged, Faults { damaged: 1, ..exact });
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let written = entry(u64::MAX - 1, 7, u32::MAX);
        assert_eq!(Entry::from_bytes(&written.to_bytes()), Some(written));
        assert_eq!(Entry::from_bytes(&[0; 7]), None);
    }
}
