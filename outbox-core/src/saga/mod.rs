//! Sagas: many steps, each of which is one transaction with its record; compensated in reverse
//! order where a step fails.
//!
//! ```text
//! start (caller's transaction) -> commit -> wake
//!    -> coordinator: claim -> plan -> step, with its record in the same transaction -> plan ..
//!         failure -> retry -> start compensating -> compensations, last step first
//! ```
//!
//! A local step is one transaction: the step's effects, the saga's progress, the record in its log,
//! and the events that the step emits. So a crash leaves a step done or not done, never in between,
//! and a pure function plans what follows from what is stored ([`plan`]).
//!
//! Any instance of a service may drive any saga. A coordinator claims due sagas under an epoch,
//! which each of its transactions checks while it holds the saga's row; an unused claim runs out by
//! the database's clock. A coordinator that takes over from a claim that ran out records each
//! attempt before it makes the attempt, so that it recognises a step that ends its process each
//! time ([`after_crash`]).

mod json;
mod reply;
mod lock;
mod definition;
mod progress;
mod state;
mod record;
mod redaction;
mod plan;
mod store;
mod coordinator;
mod mermaid;
#[cfg(test)]
mod tests;

pub(crate) use crate::event::command::is_command;
pub use crate::event::command::{
    CommandHash, CommandHeadersError, CommandId, CommandPhase, DONE, REJECTED, UNDONE, is_reply,
    replied_by, reply_to, saga_in_json,
};
pub use coordinator::{
    Replies, SagaClient, SagaStarts, Sagas, SagasBuilder, SagasError, SagasStats, Start, StuckSaga,
};
pub use definition::{
    AppendOutput, BranchFn, Branches, GroupBuilder, InGroup, IntoStepError, Local, Remote,
    RemoteBranch, RemoteSpec, RemoteStep, Saga, SagaBuilder, SagaData, SagaFault, Shape, Single,
    StepBuilder, StepContext, StepError, StepFn, StepShape, TakesFn,
};
pub use json::Json;
pub use lock::{LockOutcome, WaitEdges, deadlock_victim};
pub use mermaid::{draw, draw_instance};
pub use plan::{Plan, StepFailure, When, after_blocked, after_crash, after_failure, plan};
pub use progress::{BlockedOn, CommandState, StepProgress, StepState};
pub use record::{InvalidLog, LogEntry, Operator, Record, rebuild};
pub use reply::{Reply, ReplyEffect, after_reply};
pub use state::{Instance, SagaState};
pub use store::{
    Change, DefinitionId, Due, NewSaga, OpenSaga, Operation, SagaAdmin, SagaClaim, SagaCounts,
    SagaFilter, SagaSource, SagaStore, SagaView, Started,
};

pub(crate) use coordinator::ReplyFailure;
#[cfg(feature = "testing")]
pub(crate) use coordinator::{
    DriveOutcome, IsolationGate, Registry, SagaMetrics, SagaReports, TestAction, TestHook,
    TestPoint, Worker,
};
