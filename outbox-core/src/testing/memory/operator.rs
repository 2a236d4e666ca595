//! What operators have paused or slowed down, and what running parts write about themselves.

use super::MemoryStore;
use crate::{
    event::Timestamp,
    outbox::{
        Control, ControlAction, ControlScope, ControlStore, Controls, Live, LiveStore,
        OperatorNote, OperatorRows, StoreError,
    },
    runtime::{Wake, later, now},
};
use async_trait::async_trait;
use std::time::{Duration, Instant};

/// A control with the instant at which it ends by itself.
#[derive(Debug)]
pub(super) struct Row(Control, Option<Instant>);

impl Row {
    fn is_of(&self, scope: ControlScope, name: &str) -> bool {
        self.0.scope == scope && self.0.name == name
    }
}

impl MemoryStore {
    /// Gives the rows that running parts have written about themselves.
    #[must_use]
    pub fn live_rows(&self) -> Vec<Live> {
        self.0.state().live.values().cloned().collect()
    }
}

#[async_trait]
impl ControlStore for MemoryStore {
    async fn controls(&self) -> Result<Controls, StoreError> {
        let (state, now) = (self.0.up()?, now());
        let in_force = state.controls.iter().filter(|row| row.1.is_none_or(|until| now < until));
        let mut controls: Vec<Control> = in_force
            .map(|Row(control, until)| Control {
                ends_in: until.map(|until| until.saturating_duration_since(now)),
                ..control.clone()
            })
            .collect();
        controls.sort_by(|a, b| (a.scope, &a.name).cmp(&(b.scope, &b.name)));
        Ok(Controls(controls))
    }

    async fn set_control(
        &self,
        scope: ControlScope,
        name: &str,
        action: ControlAction,
        lasts: Option<Duration>,
        note: &OperatorNote,
    ) -> Result<(), StoreError> {
        let checked = action.check(scope, name, lasts);
        checked.map_err(|fault| StoreError::Refused(fault.into()))?;
        let mut state = self.0.writable()?;
        let is_same_kind = |row: &Row| row.0.action.as_str() == action.as_str();
        state.controls.retain(|row| !(row.is_of(scope, name) && is_same_kind(row)));
        let control = Control {
            scope,
            name: name.to_owned(),
            action,
            by: note.by.clone(),
            reason: note.reason.clone(),
            set_at: Timestamp::from_micros(0),
            until: lasts.map(|_| Timestamp::from_micros(0)),
            ends_in: None,
        };
        state.controls.push(Row(control, lasts.map(|lasts| later(now(), lasts))));
        drop(state);
        self.0.wake.wake();
        Ok(())
    }

    async fn end_controls(
        &self,
        scope: ControlScope,
        name: &str,
        _: &OperatorNote,
    ) -> Result<u64, StoreError> {
        let mut state = self.0.writable()?;
        let before = state.controls.len();
        state.controls.retain(|row| !row.is_of(scope, name));
        let ended = before - state.controls.len();
        drop(state);
        self.0.wake.wake();
        Ok(ended as u64)
    }
}

#[async_trait]
impl LiveStore for MemoryStore {
    async fn write_live(&self, id: &str, _: &str, live: Live) -> Result<(), StoreError> {
        self.0.writable()?.live.insert(id.to_owned(), live);
        Ok(())
    }

    async fn delete_live(&self, id: &str) -> Result<(), StoreError> {
        self.0.writable()?.live.remove(id);
        Ok(())
    }
}

impl OperatorRows for MemoryStore {
    fn control_wake(&self) -> Option<Wake> {
        Some(self.0.wake.clone())
    }
}
