//! What a store must do for sagas, split by who calls it. All instants are the database's own.

use super::{
    coordinator::SagaStarts,
    json::Json,
    lock::{Marked, Waiting},
    plan::When,
    record::{LogEntry, Record},
    state::{Instance, SagaState},
};
use crate::{
    admin::Decision,
    event::{SagaId, Timestamp},
    outbox::{Store, StoreError},
    runtime::Wake,
};
use async_trait::async_trait;
use serde::{Serialize, Serializer};
use std::{sync::Arc, time::Duration};

/// A saga that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSaga {
    /// Its identity, unless it is there already.
    pub id: SagaId,
    /// The definition's name.
    pub name: Arc<str>,
    /// The definition's version.
    pub version: u32,
    /// What it is known by: of one name there is one saga under it.
    pub correlation: Arc<str>,
    /// Its data.
    pub data: Json,
    /// Time until its deadline.
    pub deadline: Option<Duration>,
}

/// What became of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Started {
    /// This call has made the saga.
    New {
        /// Its identity.
        id: SagaId,
    },
    /// There is one under the name and correlation id that has not ended; nothing was written.
    Running {
        /// Its identity.
        id: SagaId,
    },
    /// There was one under the name and correlation id, and it has ended; nothing was written.
    AlreadyEnded {
        /// Its identity.
        id: SagaId,
        /// How it has ended: completed or compensated.
        outcome: SagaState,
        /// When, by the database's clock.
        ended_at: Timestamp,
    },
}

impl Started {
    /// Gives the identity of the saga under the correlation id.
    #[must_use]
    pub const fn id(&self) -> SagaId {
        match self {
            Self::New { id } | Self::Running { id } | Self::AlreadyEnded { id, .. } => *id,
        }
    }

    /// Tells whether this call has made it.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        matches!(self, Self::New { .. })
    }
}

/// A name and version of a definition.
pub type Known = (Arc<str>, u32);

/// A saga in the hands of one coordinator, until another one claims it under a later epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The saga.
    pub id: SagaId,
    /// Under which epoch it is held.
    pub epoch: i64,
    /// Its definition.
    pub definition: Known,
    /// Whether its last holder went without a word: it neither gave it back nor said when to go on.
    pub taken_over: bool,
}

/// A saga as a step sees it, locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSaga {
    /// What it is known by.
    pub correlation: Arc<str>,
    /// Where it stands.
    pub instance: Instance,
    /// Its data.
    pub data: Json,
    /// Place of the last record in the log.
    pub seq: u64,
    /// When it was opened, and whether its deadline has passed then.
    pub when: When,
}

/// When a saga is to be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// By its holder at once; by others after this time, if the holder is gone then.
    Held(Duration),
    /// By anybody after this time, or at its deadline where that comes first and still counts.
    After(Duration),
    /// Never: it is final, or waits for an operator.
    Never,
}

/// What a transaction changes of a saga that it has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<'a> {
    /// The saga.
    pub id: SagaId,
    /// Where it stood before.
    pub before: &'a Instance,
    /// Where it stands after it.
    pub instance: &'a Instance,
    /// Its data after it, where they have changed.
    pub data: Option<&'a Json>,
    /// Place of the last record before these.
    pub seq: u64,
    /// What to append to the log.
    pub records: &'a [Record],
    /// When it is to be looked at again.
    pub due: Due,
}

/// Keeps sagas. Called by starts, in the caller's transaction, and by coordinators.
#[async_trait]
pub trait SagaStore: Store {
    /// Writes a saga and the first record of its log in the transaction, unless one is there under its name and
    /// correlation id; wakes the coordinators of this process after the commit.
    async fn start(&self, tx: &Self::Tx, saga: &NewSaga) -> Result<Started, StoreError>;

    /// Gives the saga that has ended under the name and correlation id of a new one another correlation id in the transaction,
    /// so that its own is free; nothing where there is none.
    async fn set_aside(
        &self,
        tx: &Self::Tx,
        new: &NewSaga,
        correlation: &str,
    ) -> Result<(), StoreError>;

    /// What sagas are started as, by the type of their data: of all clones of the store.
    fn starts(&self) -> &SagaStarts;

    /// Takes sagas that are due, the longest due first, at most `limit`: in a transaction of its own each gets a new epoch,
    /// and is due again after `lease`. Sagas that others have locked, and those of other definitions, are left. A claim
    /// that ran out is told from a saga that was nobody's.
    async fn claim(
        &self,
        known: &[Known],
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Claim>, StoreError>;

    /// Locks a saga's row in the transaction and reads it; `None` where it is held under another epoch.
    async fn open(&self, tx: &Self::Tx, claim: &Claim) -> Result<Option<OpenSaga>, StoreError>;

    /// Locks the row of a saga in the transaction, whoever holds it, and reads it; `None` where there is none.
    async fn open_any(
        &self,
        tx: &Self::Tx,
        saga: SagaId,
    ) -> Result<Option<(Known, OpenSaga)>, StoreError>;

    /// Runs this after the transaction's commit. It dies with the process, and its panic is its own.
    fn after_commit(&self, tx: &Self::Tx, hook: Box<dyn FnOnce() + Send>);

    /// Wakes the coordinators of this process after the transaction's commit.
    fn wake_after(&self, tx: &Self::Tx);

    /// Marks an entity for a saga in the transaction, unless another saga has marked it. Waits for a transaction that marks
    /// it at this moment.
    async fn lock(&self, tx: &Self::Tx, saga: SagaId, entity: &str) -> Result<Marked, StoreError>;

    /// Says which saga has marked an entity.
    async fn holder(&self, tx: &Self::Tx, entity: &str) -> Result<Option<SagaId>, StoreError>;

    /// Says the same and keeps it so until the transaction ends: waits for one that gives the entity back at this moment, and
    /// lets none do so meanwhile.
    async fn pin_holder(&self, tx: &Self::Tx, entity: &str) -> Result<Option<SagaId>, StoreError>;

    /// Makes a saga due that is at rest until later. One that somebody has is left: its holder looks by itself.
    async fn make_due(&self, tx: &Self::Tx, saga: SagaId) -> Result<(), StoreError>;

    /// Says of some sagas for which others they wait; those that wait for none are left out.
    async fn waiting(&self, tx: &Self::Tx, sagas: &[SagaId]) -> Result<Vec<Waiting>, StoreError>;

    /// Writes what has changed of a saga that the transaction has opened, and appends to its log. Unless it is due as
    /// [`Due::Held`] it is nobody's afterwards, and no epoch of before opens it.
    ///
    /// What it [waits](Instance::waits) for is kept where [`waiting`](Self::waiting) finds it. Where it ends, the entities
    /// that are marked for it are so no more. Of those that wait for an entity the first becomes due when it is given back,
    /// and when one that waited for it does not take it.
    async fn record(&self, tx: &Self::Tx, change: &Change<'_>) -> Result<(), StoreError>;

    /// Gives sagas back that are still held under their epochs: they are due now, and nobody's.
    async fn release(&self, claims: &[Claim]) -> Result<(), StoreError>;
}

/// What coordinators need beside the store.
#[async_trait]
pub trait SagaSource: SagaStore {
    /// Gives the wake that rings when a saga was started or an operator has decided.
    fn saga_wake(&self) -> Wake;

    /// Finds definitions of sagas that are due and that are none of these: no coordinator with these can go on with them.
    async fn missing(&self, known: &[Known]) -> Result<Vec<Known>, StoreError>;

    /// Deletes sagas that ended before this time, with their logs, at most `limit`. Gives how many went.
    async fn forget(&self, keep: Duration, limit: u32) -> Result<u64, StoreError>;
}

/// Which sagas are meant. Everything that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SagaFilter {
    /// Of this name.
    pub name: Option<String>,
    /// In this state.
    pub state: Option<SagaState>,
    /// Under this correlation id.
    pub correlation: Option<String>,
}

/// A saga as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SagaView {
    /// Its identity.
    pub id: SagaId,
    /// Its definition.
    #[serde(serialize_with = "definition")]
    pub definition: Known,
    /// What it is known by.
    pub correlation: String,
    /// Where it stands.
    pub instance: Instance,
    /// When it was started.
    pub started_at: Timestamp,
    /// When its last record was written.
    pub changed_at: Timestamp,
}

fn definition<S: Serializer>((name, version): &Known, serializer: S) -> Result<S::Ok, S::Error> {
    (&**name, version).serialize(serializer)
}

/// What an operator wants of a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Turn back: undo what was done. Also of a saga that is running; not past its pivot.
    Cancel,
    /// Go on where it is stuck, with no failures counted.
    Resume,
    /// Go on from a step, where it is stuck: do it and what follows once more, or undo it and what follows once more.
    RetryFrom(String),
    /// Count the step at which it is stuck, or its compensation, as done. After a pivot that is counted so, the saga only
    /// goes forward.
    Skip(String),
}

impl Operation {
    /// Gives the record of it.
    #[must_use]
    pub fn record(&self, decision: &Decision) -> Record {
        let by = super::record::By::from(decision);
        match self {
            Self::Cancel => {
                Record::TurnedBack { reason: format!("cancelled: {}", by.why), by: Some(by) }
            }
            Self::Resume => Record::Resumed { by },
            Self::RetryFrom(step) => Record::RetriedFrom { step: step.clone(), by },
            Self::Skip(step) => Record::Passed { step: step.clone(), by },
        }
    }
}

/// Sagas counted by state, up to [`SagaCounts::LIMIT`] each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SagaCounts {
    /// Being done.
    pub running: u64,
    /// Being undone.
    pub compensating: u64,
    /// Waiting for an operator.
    pub stuck: u64,
}

impl SagaCounts {
    /// Counting stops here.
    pub const LIMIT: u64 = 100_000;
}

/// What an operator can see of sagas and do with them. Implemented by stores.
#[async_trait]
pub trait SagaAdmin: Send + Sync + 'static {
    /// Counts the sagas that have not ended; no count walks a whole table.
    async fn saga_counts(&self) -> Result<SagaCounts, StoreError>;

    /// Gives sagas by identity, which is by age, from the one after `after`, at most `limit` and as many as one answer takes
    /// by their bytes: none at all is the sign that there are no more.
    async fn sagas(
        &self,
        filter: &SagaFilter,
        after: Option<SagaId>,
        limit: u32,
    ) -> Result<Vec<SagaView>, StoreError>;

    /// Gives the log of a saga, in order.
    async fn saga_log(&self, saga: SagaId) -> Result<Vec<LogEntry>, StoreError>;

    /// Does what an operator wants, where the saga's state allows it, and notes who and why; `false` where it does not,
    /// as after somebody else was faster.
    async fn operate(
        &self,
        saga: SagaId,
        operation: &Operation,
        decision: &Decision,
    ) -> Result<bool, StoreError>;
}
