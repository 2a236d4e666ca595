//! The relay: publishes the events of the outbox. Its actors around a pure board.

mod board;
mod builder;
mod dispatcher;
mod fault;
mod handle;
mod incarnation;
mod keeper;
mod messages;
mod metrics;
mod observers;
mod operator;
mod publisher;
mod reader;
mod sampler;
mod settings;
mod settler;
mod timers;

pub use board::RelayStats;
pub use builder::RelayBuilder;
pub use fault::RelayFault;
pub use handle::{Relay, RelayError};
pub use settings::RelaySettings;

use crate::{
    outbox::{RelayStore, StoreError},
    runtime::Wake,
    transport::Route,
};
use async_trait::async_trait;
use std::time::Duration;

/// An outbox that a relay can be started on.
#[async_trait]
pub trait RelaySource: Send + Sync {
    /// Opens the store for a relay, on connections of its own whose timeouts are a third of the
    /// lease.
    async fn open_relay_store(&self, lease: Duration) -> Result<RelayStore, StoreError>;

    /// Gives the wake that is triggered after each commit of this process.
    fn wake_handle(&self) -> Wake;

    /// Takes the routes of a relay, so that enqueue can refuse events that no route takes or that a
    /// destination would refuse.
    fn routes_known(&self, routes: &[Route]) {
        let _ = routes;
    }
}
