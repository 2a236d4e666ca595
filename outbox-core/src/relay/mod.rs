//! Who carries it: the relay and its actors.

mod board;
mod builder;
mod config;
mod dispatcher;
mod keeper;
mod life;
mod messages;
mod observers;
mod publisher;
mod reader;
mod retrier;
mod settler;

pub use board::RelayStats;
pub use builder::{Relay, RelayBuilder, RelayError};
pub use config::RelayConfig;

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
    /// Opens the store for a relay, on connections of its own whose timeouts are a third of the lease.
    async fn open_relay_store(&self, lease: Duration) -> Result<RelayStore, StoreError>;

    /// Gives the wake that rings after each commit of this process.
    fn wake_handle(&self) -> Wake;

    /// Is told the routes, so that what none of them takes, or their destinations would refuse, can be refused at
    /// enqueue.
    fn routes_known(&self, routes: &[Route]) {
        let _ = routes;
    }
}
