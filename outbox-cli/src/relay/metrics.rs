//! Metrics and health of a relay process, over HTTP.

use super::file::MetricsPart;
use crate::error::CliError;
use outbox_core::runtime::{Task, spawn};
use outbox_metrics::MetricsRouter;
use outbox_sea_orm::{Outbox, relay::Relay};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

/// The socket on which one relay after the other serves its metrics.
pub(super) struct Listener {
    /// As the file has it.
    listen: SocketAddr,
    socket: TcpListener,
}

impl Listener {
    /// Binds the address of a file; takes the former socket where the address is the same.
    pub(super) fn of(
        part: Option<&MetricsPart>,
        former: Option<&Arc<Self>>,
    ) -> Result<Option<Arc<Self>>, CliError> {
        let Some(MetricsPart { listen }) = part else { return Ok(None) };
        if let Some(former) = former.filter(|former| former.listen == *listen) {
            return Ok(Some(former.clone()));
        }
        let socket = Self::bind(*listen).map_err(|error| {
            let has_port = former.is_some_and(|former| former.listen.port() == listen.port());
            let hint = if has_port { "; this process has the port, so restart it" } else { "" };
            CliError::Usage(format!("[metrics] cannot be served on {listen}: {error}{hint}"))
        })?;
        Ok(Some(Arc::new(Self { listen: *listen, socket })))
    }

    fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
        let socket = TcpListener::bind(listen)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Begins to serve `/metrics`, `/live` and `/ready` of a relay.
    pub(super) fn serve(&self, relay: &Relay, outbox: Outbox) -> Result<Server, CliError> {
        let listener = tokio::net::TcpListener::from_std(self.socket.try_clone()?)?;
        let router =
            MetricsRouter::new().check(relay.health_check()).database("outbox", outbox).build();
        let running = spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                crate::output::warn(&format!("metrics and health are served no longer: {error}"));
            }
        });
        Ok(Server { running })
    }
}

/// Serves the metrics of one relay. Dropped, it stops, and connections wait for the next one.
pub(super) struct Server {
    running: Task<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.abort();
    }
}
