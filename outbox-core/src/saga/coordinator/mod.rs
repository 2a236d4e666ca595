//! The coordinator: claims sagas that are due, and carries each of them as far as it goes.

mod handle;
mod registry;
mod actor;
mod worker;
mod care;
mod held;
mod attempt;
mod writing;
mod stuck;
mod replies;

#[cfg(feature = "testing")]
pub(crate) use care::Suspects;
pub use handle::{Sagas, SagasBuilder, SagasError, SagasStats, Start};
#[cfg(feature = "testing")]
pub(crate) use registry::Registry;
pub use replies::Replies;
pub use stuck::StuckSaga;
#[cfg(feature = "testing")]
pub(crate) use worker::{Moment, Strike, Worker, WorkerEnd};
