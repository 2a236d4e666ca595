//! Many steps: each one a transaction with its record, compensated in reverse order when one of them cannot be done.
//!
//! ```text
//! start (caller's transaction) -> commit -> wake
//!    -> coordinator: claim -> plan -> step, with its record in the same transaction -> plan ..
//!         failure -> retry -> turn back -> compensations, last step first
//! ```
//!
//! A local step is one transaction: the step's effects, the saga's progress, the record in its log, and the events that
//! the step emits. So a crash leaves a step done or not done, never in between, and what follows is planned by a pure
//! function from what is written ([`plan`]).
//!
//! Any instance of a service may go on with any saga. A coordinator claims those that are due, under an epoch that each
//! of its transactions checks while it holds the saga's row; a claim that is not used runs out by the database's clock.
//! Whoever takes over from a holder that went without a word writes down what it tries before it tries it, so that a step
//! that ends its process each time is known ([`after_crash`]).

mod json;
mod call;
mod answer;
mod lock;
mod definition;
mod progress;
mod state;
mod record;
mod plan;
mod store;
mod coordinator;
mod drawing;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Heard, after_answer};
pub(crate) use call::is_command;
pub use call::{Call, CallFault, CommandHash, DONE, Phase, REJECTED, UNDONE, answered_by, is_answer, reply_to};
pub use coordinator::{Replies, SagaClient, SagaStarts, Sagas, SagasBuilder, SagasError, SagasStats, Start, StuckSaga};
pub use definition::{
    Asks, BranchByOthers, BranchFn, Branches, ByOthers, GroupBuilder, InGroup, IntoStepError, Joined, Local, Others,
    Saga, SagaBuilder, SagaData, SagaFault, Shape, Single, StepBuilder, StepContext, StepError, StepFn, StepShape,
    TakesFn,
};
pub use drawing::{draw, draw_instance};
pub use json::Json;
pub use lock::{Marked, Waiting, gives_way};
pub use plan::{Failed, Plan, When, after_crash, after_failure, after_held, plan};
pub use progress::{Asked, Held, StepProgress, StepState};
pub use record::{BrokenLog, By, LogEntry, Record, rebuild};
pub use state::{Instance, SagaState};
pub use store::{
    Change, Claim, Due, Known, NewSaga, OpenSaga, Operation, SagaAdmin, SagaCounts, SagaFilter, SagaSource, SagaStore,
    SagaView, Started,
};

#[cfg(feature = "testing")]
pub(crate) use coordinator::{Moment, Probe, Registry, SagaReports, Strike, Suspects, Worker, WorkerEnd};
