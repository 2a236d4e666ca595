//! What a store must do for sagas, split by who calls it. All instants are the database's own.

use super::{
    coordinator::SagaStarts,
    json::Json,
    lock::{LockOutcome, WaitEdges},
    plan::When,
    record::{LogEntry, Operator, Record},
    state::{Instance, SagaState},
};
use crate::{
    event::{SagaId, Timestamp},
    outbox::{OperatorNote, Store, StoreError},
    runtime::Wake,
};
use async_trait::async_trait;
use serde::{Serialize, Serializer};
use std::{sync::Arc, time::Duration};

/// A saga that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSaga {
    /// The identity that it gets, unless the saga exists already.
    pub id: SagaId,
    /// The definition's name.
    pub name: Arc<str>,
    /// The definition's version.
    pub version: u32,
    /// Its correlation id: there is one saga of a name under it.
    pub correlation: Arc<str>,
    /// Its data.
    pub data: Json,
    /// Time until its deadline.
    pub deadline: Option<Duration>,
}

/// The outcome of a start.
///
/// ```
/// # use outbox_core::saga::Started;
/// fn status(started: Started) -> u16 {
///     match started {
///         Started::New { .. } => 201,
///         Started::Running { .. } => 202,
///         Started::AlreadyEnded { .. } => 200,
///         _ => 500,
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Started {
    /// The start has written a new saga.
    New {
        /// Its identity.
        id: SagaId,
    },
    /// A saga under the name and correlation id has not ended; nothing was written.
    Running {
        /// Its identity.
        id: SagaId,
    },
    /// A saga under the name and correlation id has ended; nothing was written.
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

    /// Tells whether the start has written a new saga.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        matches!(self, Self::New { .. })
    }
}

/// The name and version of a definition.
pub type DefinitionId = (Arc<str>, u32);

/// The claim of one coordinator on a saga, until another one claims it under a later epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaClaim {
    /// The saga.
    pub id: SagaId,
    /// The epoch of the claim.
    pub epoch: i64,
    /// Its definition.
    pub definition: DefinitionId,
    /// Whether the claim before it ran out: its coordinator neither released the saga nor recorded
    /// when it is due.
    pub taken_over: bool,
}

/// A saga whose row a transaction has locked and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSaga {
    /// Its correlation id.
    pub correlation: Arc<str>,
    /// Its state.
    pub instance: Instance,
    /// Its data.
    pub data: Json,
    /// Number of the last record in the log.
    pub seq: u64,
    /// When the row was read, and whether the saga's deadline had passed by then.
    pub when: When,
}

/// When a coordinator drives a saga next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// At once, under the present claim, which lasts for this time.
    Leased(Duration),
    /// After this time, or at the saga's deadline where that comes first and still counts: any
    /// coordinator may claim it.
    After(Duration),
    /// Never: it has ended, or is stuck.
    Never,
}

/// The change of a saga in the transaction that has opened it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<'a> {
    /// The saga.
    pub id: SagaId,
    /// Its state before the change.
    pub before: &'a Instance,
    /// Its state after the change.
    pub instance: &'a Instance,
    /// Its data after the change, where they have changed.
    pub data: Option<&'a Json>,
    /// Number of the last record before these.
    pub seq: u64,
    /// The records to append to the log.
    pub records: &'a [Record],
    /// When a coordinator drives it next.
    pub due: Due,
}

/// Stores sagas. Starts call it in the caller's transaction, coordinators in their own.
#[async_trait]
pub trait SagaStore: Store {
    /// Writes a saga and the first record of its log in the transaction, unless there is a saga
    /// under its name and correlation id; wakes the coordinators of this process after the commit.
    async fn start(&self, tx: &Self::Tx, saga: &NewSaga) -> Result<Started, StoreError>;

    /// Moves the ended saga under the name and correlation id of a new one to another correlation
    /// id, in the transaction, so that the new one can have its own. Does nothing where there is
    /// none.
    async fn set_aside(
        &self,
        tx: &Self::Tx,
        new: &NewSaga,
        correlation: &str,
    ) -> Result<(), StoreError>;

    /// Gives what sagas are started as, by the type of their data. All clones of the store share
    /// it.
    fn starts(&self) -> &SagaStarts;

    /// Claims sagas of these definitions that are due, the longest due first, at most `limit`, in a
    /// transaction of its own: each gets a new epoch, and is due again after `lease`. Skips rows
    /// that other transactions have locked. A claim tells whether it takes over from one that ran
    /// out.
    async fn claim(
        &self,
        definitions: &[DefinitionId],
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<SagaClaim>, StoreError>;

    /// Locks a saga's row in the transaction and reads it; `None` where the saga has another epoch
    /// than the claim.
    async fn open(&self, tx: &Self::Tx, claim: &SagaClaim) -> Result<Option<OpenSaga>, StoreError>;

    /// Locks a saga's row in the transaction and reads it, whichever coordinator has claimed it, to
    /// apply a reply; `None` where there is no such saga.
    async fn open_for_reply(
        &self,
        tx: &Self::Tx,
        saga: SagaId,
    ) -> Result<Option<(DefinitionId, OpenSaga)>, StoreError>;

    /// Runs this after the transaction's commit. It does not run where the process ends before, and
    /// its panic affects nothing else.
    fn after_commit(&self, tx: &Self::Tx, hook: Box<dyn FnOnce() + Send>);

    /// Wakes the coordinators of this process after the transaction's commit.
    fn wake_after_commit(&self, tx: &Self::Tx);

    /// Locks an entity for a saga in the transaction, unless another saga has locked it. Waits for
    /// an open transaction that locks the same entity.
    async fn lock(
        &self,
        tx: &Self::Tx,
        saga: SagaId,
        entity: &str,
    ) -> Result<LockOutcome, StoreError>;

    /// Gives the saga that has locked an entity.
    async fn holder(&self, tx: &Self::Tx, entity: &str) -> Result<Option<SagaId>, StoreError>;

    /// Gives the saga that has locked an entity, and holds the lock's row shared until the
    /// transaction ends: waits for an open transaction that releases the lock, and keeps others
    /// from releasing it meanwhile.
    async fn holder_for_share(
        &self,
        tx: &Self::Tx,
        entity: &str,
    ) -> Result<Option<SagaId>, StoreError>;

    /// Makes a saga due now that no coordinator has claimed and that is due later. Leaves a claimed
    /// one: its coordinator polls the lock by itself.
    async fn schedule_now(&self, tx: &Self::Tx, saga: SagaId) -> Result<(), StoreError>;

    /// Gives for which other sagas these wait; omits those that wait for none.
    async fn wait_edges(
        &self,
        tx: &Self::Tx,
        sagas: &[SagaId],
    ) -> Result<Vec<WaitEdges>, StoreError>;

    /// Writes the change of a saga that the transaction has opened, and appends to its log. Unless
    /// it is due as [`Due::Leased`], this ends the claim: no earlier epoch opens the saga.
    ///
    /// Stores the locks for which the saga [waits](Instance::blocked_on), so that
    /// [`wait_edges`](Self::wait_edges) finds them. Releases its locks where it ends. Makes the
    /// first of the sagas due that wait for an entity, where its lock is released, and where a saga
    /// stops waiting for it without having locked it.
    async fn record(&self, tx: &Self::Tx, change: &Change<'_>) -> Result<(), StoreError>;

    /// Releases claims whose epochs still hold: the sagas are due now, and any coordinator may
    /// claim them.
    async fn release(&self, claims: &[SagaClaim]) -> Result<(), StoreError>;
}

/// What coordinators need of a store beside [`SagaStore`].
#[async_trait]
pub trait SagaSource: SagaStore {
    /// Gives the wake for starts of sagas and for operators' decisions.
    fn saga_wake(&self) -> Wake;

    /// Finds the definitions of due sagas that are none of these: a coordinator with these cannot
    /// drive such sagas.
    async fn missing(&self, definitions: &[DefinitionId]) -> Result<Vec<DefinitionId>, StoreError>;

    /// Deletes sagas that ended longer ago than `keep`, with their logs, at most `limit`. Gives the
    /// number of deleted sagas.
    async fn prune(&self, keep: Duration, limit: u32) -> Result<u64, StoreError>;
}

/// Selects sagas that match everything that is set.
///
/// ```
/// # use outbox_core::saga::{SagaFilter, SagaState};
/// let stuck_orders = SagaFilter {
///     name: Some("place-order".to_owned()),
///     state: Some(SagaState::Stuck),
///     ..SagaFilter::default()
/// };
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SagaFilter {
    /// Of this name.
    pub name: Option<String>,
    /// In this state.
    pub state: Option<SagaState>,
    /// Under this correlation id.
    pub correlation: Option<String>,
}

/// A saga as operators see it.
///
/// ```
/// # use outbox_core::saga::SagaView;
/// # fn example(saga: &SagaView) {
/// let (name, version) = &saga.definition;
/// println!("{name} v{version} {} is {} since {}", saga.correlation, saga.instance.state, saga.changed_at);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SagaView {
    /// Its identity.
    pub id: SagaId,
    /// Its definition.
    #[serde(serialize_with = "definition")]
    pub definition: DefinitionId,
    /// Its correlation id.
    pub correlation: String,
    /// Its state.
    pub instance: Instance,
    /// When it was started.
    pub started_at: Timestamp,
    /// When its last record was written.
    pub changed_at: Timestamp,
}

fn definition<S: Serializer>(
    (name, version): &DefinitionId,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    (&**name, version).serialize(serializer)
}

/// What an operator does with a saga.
///
/// ```
/// # use outbox_core::{admin::OperatorNote, event::SagaId, outbox::StoreError, saga::{Operation, SagaAdmin}};
/// # async fn example(outbox: &dyn SagaAdmin, saga: SagaId) -> Result<(), StoreError> {
/// let note = OperatorNote::new("ann", "the carrier took the parcel by phone");
/// let skip = Operation::Skip("ship".to_owned());
/// if !outbox.operate(saga, &skip, &note).await? {
///     println!("the saga is not stuck at this step any more");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Start compensating, also where the saga is running; not past its pivot.
    Cancel,
    /// Go on where it is stuck, with all failures reset.
    Resume,
    /// Go on from a step, where it is stuck: do, or undo, that step and those that follow again.
    RetryFrom(String),
    /// Skip the step at which it is stuck, or its compensation, which counts as done. After a
    /// skipped pivot the saga only goes forward.
    Skip(String),
}

impl Operation {
    /// Gives the record that it appends.
    #[must_use]
    pub fn record(&self, note: &OperatorNote) -> Record {
        let by = Operator::from(note);
        match self {
            Self::Cancel => Record::CompensationStarted {
                reason: format!("cancelled: {}", by.reason),
                by: Some(by),
            },
            Self::Resume => Record::Resumed { by },
            Self::RetryFrom(step) => Record::RetriedFrom { step: step.clone(), by },
            Self::Skip(step) => Record::SkippedByOperator { step: step.clone(), by },
        }
    }
}

/// Sagas counted by state, up to [`SagaCounts::LIMIT`] each.
///
/// ```
/// # use outbox_core::saga::SagaCounts;
/// fn alert(counts: &SagaCounts) -> bool {
///     counts.stuck > 0 // an operator has to decide
/// }
/// assert!(!alert(&SagaCounts::default()));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SagaCounts {
    /// Sagas that run their steps.
    pub running: u64,
    /// Sagas that compensate.
    pub compensating: u64,
    /// Sagas that are stuck.
    pub stuck: u64,
}

impl SagaCounts {
    /// Counting stops here.
    pub const LIMIT: u64 = 100_000;
}

/// What an operator sees of sagas and does with them. Stores implement it.
///
/// ```
/// # use outbox_core::{outbox::StoreError, saga::{SagaAdmin, SagaFilter, SagaState}};
/// # async fn example(outbox: &dyn SagaAdmin) -> Result<(), StoreError> {
/// println!("{} sagas are stuck", outbox.saga_counts().await?.stuck);
/// let stuck = SagaFilter { state: Some(SagaState::Stuck), ..SagaFilter::default() };
/// for saga in outbox.sagas(&stuck, None, 20).await? {
///     println!("{} {} since {}", saga.id, saga.correlation, saga.changed_at);
///     for entry in outbox.saga_log(saga.id).await? {
///         println!("  {} {}", entry.at, entry.record.kind());
///     }
/// }
/// # Ok(()) }
/// ```
#[async_trait]
pub trait SagaAdmin: Send + Sync + 'static {
    /// Counts the sagas that have not ended; no count walks a whole table.
    async fn saga_counts(&self) -> Result<SagaCounts, StoreError>;

    /// Gives sagas by identity, which is by age, from the one after `after`: at most `limit`, and
    /// no more than fit one page by their bytes. Only an empty page says that there are no more.
    async fn sagas(
        &self,
        filter: &SagaFilter,
        after: Option<SagaId>,
        limit: u32,
    ) -> Result<Vec<SagaView>, StoreError>;

    /// Gives the log of a saga, in order.
    async fn saga_log(&self, saga: SagaId) -> Result<Vec<LogEntry>, StoreError>;

    /// Applies an operation, where the saga's state allows it, and records the operator and the
    /// reason, in the saga's log and in the audit; `false` where it does not, as after another operator was faster.
    async fn operate(
        &self,
        saga: SagaId,
        operation: &Operation,
        note: &OperatorNote,
    ) -> Result<bool, StoreError>;
}
