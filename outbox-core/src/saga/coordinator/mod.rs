//! The coordinator: claims due sagas, and drives each of them until it ends, waits or is stuck.

mod builder;
mod handle;
mod registry;
mod actor;
mod worker;
mod crash_isolation;
mod blocked;
mod lost_connections;
mod metrics;
mod attempt;
mod transition;
mod commit;
mod hooks;
mod operator;
mod start;
mod reports;
mod stuck;
mod replies;
mod unexpected_senders;

pub use builder::SagasBuilder;
#[cfg(feature = "testing")]
pub(crate) use crash_isolation::IsolationGate;
pub use handle::{Sagas, SagasError, SagasStats};
#[cfg(feature = "testing")]
pub(crate) use metrics::SagaMetrics;
#[cfg(feature = "testing")]
pub(crate) use registry::Registry;
pub use replies::Replies;
pub(crate) use replies::ReplyFailure;
#[cfg(feature = "testing")]
pub(crate) use reports::SagaReports;
pub use start::{SagaClient, SagaStarts, Start};
pub use stuck::StuckSaga;
#[cfg(feature = "testing")]
pub(crate) use worker::{DriveOutcome, TestAction, TestHook, TestPoint, Worker};
