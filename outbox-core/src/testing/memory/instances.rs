//! Rows of a consumer's instances.

use super::MemoryStore;
use crate::{
    outbox::{DeclaredHandler, InstanceRow, InstanceStore, NewInstance, StoreError},
    runtime::{later, now},
};
use async_trait::async_trait;
use std::time::{Duration, Instant};

/// The row of an instance.
#[derive(Debug)]
pub(super) struct Row {
    consumer: String,
    max_in_flight: u32,
    handlers: Vec<DeclaredHandler>,
    renewed: i64,
    until: Instant,
}

impl MemoryStore {
    /// Gives what the instances declare that have not signed off.
    #[must_use]
    pub fn declared(&self) -> Vec<Vec<DeclaredHandler>> {
        self.0.state().instances.values().map(|row| row.handlers.clone()).collect()
    }
}

#[async_trait]
impl InstanceStore for MemoryStore {
    async fn register_instance(
        &self,
        instance: &NewInstance<'_>,
        lease: Duration,
    ) -> Result<(), StoreError> {
        let row = Row {
            consumer: instance.consumer.to_owned(),
            max_in_flight: instance.max_in_flight,
            handlers: instance.handlers.to_vec(),
            renewed: 0,
            until: later(now(), lease),
        };
        self.0.writable()?.instances.insert(instance.id.clone(), row);
        Ok(())
    }

    async fn renew_instance(&self, id: &str, lease: Duration) -> Result<bool, StoreError> {
        let mut state = self.0.writable()?;
        let row = state.instances.get_mut(id);
        let is_there = row.is_some();
        if let Some(row) = row {
            (row.renewed, row.until) = (row.renewed + 1, later(now(), lease));
        }
        Ok(is_there)
    }

    async fn instances(&self, consumer: &str) -> Result<Vec<InstanceRow>, StoreError> {
        let (state, now) = (self.0.up()?, now());
        let rows = state.instances.iter().filter(|(_, row)| row.consumer == consumer);
        Ok(rows
            .map(|(id, row)| InstanceRow {
                id: id.clone(),
                max_in_flight: row.max_in_flight,
                lease_until: row.renewed,
                expired_for: now.checked_duration_since(row.until),
                handlers: row.handlers.clone(),
            })
            .collect())
    }

    async fn remove_instance(&self, id: &str, if_expired: bool) -> Result<(), StoreError> {
        let mut state = self.0.writable()?;
        if !if_expired || state.instances.get(id).is_some_and(|row| row.until < now()) {
            state.instances.remove(id);
        }
        Ok(())
    }
}
