//! What an operator has paused, as the coordinator obeys it, and what the coordinator writes about
//! itself.

use crate::{
    event::RelayId,
    failure::BackgroundWork,
    outbox::{ControlReader, ControlScope, Controls, Live, OperatorRows, SagasLive, StoreError},
    runtime::now,
    saga::store::DefinitionId,
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// Shortest time between two reads of the controls.
const READ_INTERVAL: Duration = Duration::from_secs(1);
/// How long the deletion of the live row may take when the coordinator ends.
const LEAVE_GRACE: Duration = Duration::from_secs(1);

/// The definitions that an operator has paused, and the coordinator's live row.
pub(super) struct SagasOperator {
    id: RelayId,
    rows: Option<Arc<dyn OperatorRows>>,
    /// `None` while a task has it.
    reader: Option<ControlReader>,
    /// Whether the controls were read, or could not be: nothing is claimed before.
    is_known: bool,
    /// Paused definitions, each with the instant at which its pause ends by itself.
    paused: BTreeMap<String, Option<Instant>>,
    /// How long a claim lasts: the live row is written every third of that.
    lease: Duration,
    read_at: Instant,
    write_at: Instant,
}

/// What one task does for the operator: it reads the controls, and writes the live row if there is
/// one to write.
pub(super) struct OperatorTask {
    id: RelayId,
    rows: Arc<dyn OperatorRows>,
    reader: ControlReader,
    live: Option<SagasLive>,
    within: Duration,
}

/// The outcome of a task.
pub(super) struct Operated {
    reader: ControlReader,
    /// The controls, if they have changed.
    controls: Option<Controls>,
    write: Result<(), StoreError>,
}

impl SagasOperator {
    pub(super) fn new(rows: Option<Arc<dyn OperatorRows>>, lease: Duration) -> Self {
        let is_known = rows.is_none();
        let (paused, at) = (BTreeMap::new(), now());
        let id = RelayId::generate();
        Self { id, rows, reader: None, is_known, paused, lease, read_at: at, write_at: at }
    }

    /// Gives the instant of the next task at the latest; `None` while one is running.
    pub(super) fn next_at(&self, is_running: bool) -> Option<Instant> {
        let next = self.write_at.max(self.read_at);
        self.rows.as_ref().filter(|_| !is_running).map(|_| next)
    }

    /// Gives the task that is due; there is one at a time. `live` describes the coordinator.
    pub(super) fn task(
        &mut self,
        is_running: bool,
        now: Instant,
        live: impl FnOnce() -> SagasLive,
    ) -> Option<OperatorTask> {
        let rows = self.rows.clone().filter(|_| !is_running && self.read_at <= now)?;
        let writes = self.write_at <= now;
        self.read_at = now + READ_INTERVAL;
        if writes {
            self.write_at = now + self.lease / 3;
        }
        let reader = self.reader.take();
        Some(OperatorTask {
            id: self.id.clone(),
            // The task before may have panicked with it.
            reader: reader.unwrap_or_else(|| ControlReader::new(rows.clone())),
            rows,
            live: writes.then(live).map(|live| SagasLive { paused: self.paused_now(now), ..live }),
            within: self.lease / 3,
        })
    }

    /// Takes the outcome of a task; tells whether the controls have changed.
    pub(super) fn done(&mut self, operated: Operated, work: &BackgroundWork) -> bool {
        self.is_known = true;
        self.reader = Some(operated.reader);
        match operated.write {
            Ok(()) => work.succeeded("write the coordinator's live row"),
            Err(error) => work.failed("write the coordinator's live row", &error),
        }
        let Some(controls) = operated.controls else { return false };
        let now = now();
        let of_sagas = controls.0.iter().filter(|control| {
            controls.pause(control.scope, &control.name).is_some()
                && control.scope == ControlScope::Saga
        });
        self.paused = of_sagas
            .map(|control| (control.name.clone(), control.ends_in.map(|left| now + left)))
            .collect();
        true
    }

    /// Tells whether sagas may be claimed: the controls are known.
    pub(super) fn is_known(&self) -> bool {
        self.is_known
    }

    /// Tells whether a definition is paused.
    pub(super) fn is_paused(&self, definition: &DefinitionId, now: Instant) -> bool {
        let until = self.paused.get(&*definition.0);
        until.is_some_and(|until| until.is_none_or(|until| now < until))
    }

    /// Gives the definitions that are not paused.
    pub(super) fn claimable(
        &self,
        definitions: &Arc<[DefinitionId]>,
        now: Instant,
    ) -> Arc<[DefinitionId]> {
        if self.paused.is_empty() {
            return Arc::clone(definitions);
        }
        definitions.iter().filter(|one| !self.is_paused(one, now)).cloned().collect()
    }

    fn paused_now(&self, now: Instant) -> Vec<String> {
        let in_force = |until: &Option<Instant>| until.is_none_or(|until| now < until);
        self.paused
            .iter()
            .filter(|(_, until)| in_force(until))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Deletes the live row.
    pub(super) async fn leave(&self) {
        if let Some(rows) = &self.rows {
            // A janitor deletes it after a day.
            _ = timeout(LEAVE_GRACE, rows.delete_live(self.id.as_str())).await;
        }
    }
}

impl OperatorTask {
    pub(super) async fn run(mut self) -> Operated {
        let controls = self.reader.read(self.within).await;
        let write = match self.live {
            None => Ok(()),
            Some(live) => {
                let write = self.rows.write_live(self.id.as_str(), "", Live::Sagas(live));
                match timeout(self.within, write).await {
                    Ok(written) => written,
                    Err(late) => Err(StoreError::Unavailable(late.into())),
                }
            }
        };
        Operated { reader: self.reader, controls, write }
    }
}
