//! Metrics and health of a relay process, over HTTP.

use crate::error::CliError;
use outbox_core::runtime::{Task, spawn};
use outbox_metrics::MetricsRouter;
use outbox_sea_orm::{Outbox, relay::Relay};
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Serves `/metrics`, `/live` and `/ready` of one relay. Dropped, it stops.
pub(super) struct Server {
    running: Task<()>,
}

impl Server {
    /// Begins to serve on an address.
    pub(super) async fn start(
        listen: SocketAddr,
        relay: &Relay,
        outbox: Outbox,
    ) -> Result<Self, CliError> {
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            CliError::Usage(format!("[metrics] cannot be served on {listen}: {error}"))
        })?;
        let router =
            MetricsRouter::new().check(relay.health_check()).database("outbox", outbox).build();
        let running = spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                crate::output::warn(&format!("metrics and health are served no longer: {error}"));
            }
        });
        Ok(Self { running })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.abort();
    }
}
