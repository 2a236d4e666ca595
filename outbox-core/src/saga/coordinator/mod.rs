//! The coordinator: claims sagas that are due, and carries each of them as far as it goes.

mod handle;
mod registry;
mod actor;
mod worker;
mod care;
mod held;
mod losses;
mod attempt;
mod writing;
mod commit;
mod hooks;
mod start;
mod reports;
mod stuck;
mod replies;
mod strangers;

#[cfg(feature = "testing")]
pub(crate) use care::Suspects;
pub use handle::{Sagas, SagasBuilder, SagasError, SagasStats};
#[cfg(feature = "testing")]
pub(crate) use registry::Registry;
pub use replies::Replies;
#[cfg(feature = "testing")]
pub(crate) use reports::SagaReports;
pub use start::{SagaClient, SagaStarts, Start};
pub use stuck::StuckSaga;
#[cfg(feature = "testing")]
pub(crate) use worker::{Moment, Probe, Strike, Worker, WorkerEnd};
