//! The run of a saga in a test.

use super::participants::Participants;
use crate::{
    event::SagaId,
    saga::{Instance, Json, LogEntry, Record, SagaAdmin, SagaState, StepState, rebuild},
};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// A saga that was driven until it ended or was stuck. An expectation that does not hold panics
/// with the saga's state.
///
/// ```
/// # use outbox_core::testing::saga::SagaRun;
/// # fn example(run: &SagaRun) {
/// run.expect_stuck_at("ship").expect_done(&["reserve", "charge"]);
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SagaRun {
    /// The saga.
    pub id: SagaId,
    /// Its state.
    pub instance: Instance,
    /// Its log.
    pub log: Vec<LogEntry>,
    /// Time that it would have waited between attempts and for replies.
    pub waited: Duration,
    /// Steps that participants have done, by name.
    pub done_remotely: Vec<String>,
    pub(super) participants: Participants,
    data: Option<Json>,
}

impl SagaRun {
    /// Reads a saga by its log alone.
    pub(super) async fn read(store: &dyn SagaAdmin, id: SagaId, waited: Duration) -> Self {
        let log = store.saga_log(id).await.expect("the log is read");
        let (instance, data) =
            rebuild(log.iter().map(|entry| &entry.record)).expect("the log is valid");
        Self {
            id,
            instance,
            log,
            waited,
            done_remotely: Vec::new(),
            participants: Participants::default(),
            data,
        }
    }

    /// Gives the state.
    #[must_use]
    pub const fn state(&self) -> SagaState {
        self.instance.state
    }

    /// Gives the saga's data at the end.
    ///
    /// # Panics
    /// When they do not decode.
    #[must_use]
    pub fn data<D: DeserializeOwned>(&self) -> D {
        self.data.as_ref().expect("a started saga has data").read().expect("the data decode")
    }

    /// Tells whether a step was attempted: it is done, failed, or the reason of the compensation.
    #[must_use]
    pub fn attempted(&self, step: &str) -> bool {
        let about = format!("`{step}`");
        self.log.iter().any(|entry| match &entry.record {
            Record::CompensationStarted { reason, .. } => reason.starts_with(&about),
            Record::SkippedByCondition { .. } => false,
            record => record.step() == Some(step),
        })
    }

    /// Expects that all steps are done.
    ///
    /// # Panics
    /// When they are not.
    #[track_caller]
    pub fn expect_completed(&self) -> &Self {
        self.expect(SagaState::Completed)
    }

    /// Expects that everything that was done is undone.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn expect_compensated(&self) -> &Self {
        self.expect(SagaState::Compensated)
    }

    /// Expects that the saga is stuck at a step.
    ///
    /// # Panics
    /// When it is not, or elsewhere.
    #[track_caller]
    pub fn expect_stuck_at(&self, step: &str) -> &Self {
        self.expect(SagaState::Stuck);
        assert_eq!(self.instance.stuck_at.as_deref(), Some(step), "{:?}", self.instance);
        self
    }

    /// Expects that these steps were done, in this order, and no others.
    ///
    /// # Panics
    /// When it was otherwise.
    #[track_caller]
    pub fn expect_done(&self, steps: &[&str]) -> &Self {
        let done = |record: &Record| matches!(record, Record::Done { .. });
        assert_eq!(self.steps_of(done), steps, "done, of {:?}", self.instance);
        self
    }

    /// Expects that these steps were undone, in this order, and no others.
    ///
    /// # Panics
    /// When it was otherwise.
    #[track_caller]
    pub fn expect_undone(&self, steps: &[&str]) -> &Self {
        let undone = |record: &Record| matches!(record, Record::Undone { .. });
        assert_eq!(self.steps_of(undone), steps, "undone, of {:?}", self.instance);
        self
    }

    /// Expects that participants have done these steps, in the order of their names, and no others.
    ///
    /// # Panics
    /// When it is otherwise.
    #[track_caller]
    pub fn expect_done_remotely(&self, steps: &[&str]) -> &Self {
        assert_eq!(self.done_remotely, steps, "of {:?}", self.instance);
        self
    }

    /// Expects that a step was skipped.
    ///
    /// # Panics
    /// When it was not.
    #[track_caller]
    pub fn expect_skipped(&self, step: &str) -> &Self {
        let state = self.instance.step(step).map(|known| known.state);
        assert_eq!(state, Some(StepState::Skipped), "`{step}`, of {:?}", self.instance);
        self
    }

    #[track_caller]
    fn expect(&self, state: SagaState) -> &Self {
        assert_eq!(self.instance.state, state, "{:?}", self.instance);
        self
    }

    fn steps_of(&self, is: impl Fn(&Record) -> bool) -> Vec<&str> {
        self.log
            .iter()
            .map(|entry| &entry.record)
            .filter(|record| is(record))
            .filter_map(Record::step)
            .collect()
    }
}
