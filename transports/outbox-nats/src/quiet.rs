//! A thread for each connection, on which the client library connects, reads and writes with its log
//! muted: at TRACE it logs the login and whole messages.

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr};
use outbox_core::runtime::thread;
use std::time::Duration;
use tokio::{runtime::Builder, sync::oneshot, time::timeout};
use tracing::{Dispatch, dispatcher::set_default};

/// Keeps the thread of a connection. On drop the thread sends what the library still has, such as
/// ack decisions, closes the connection and ends.
pub(crate) struct ConnectionThread {
    _ends_when_dropped: oneshot::Sender<()>,
}

/// Connects on a thread of its own.
///
/// # Cancel safety
/// A call that is dropped leaves no connection and no thread.
pub(crate) async fn connect(
    options: ConnectOptions,
    addresses: Vec<ServerAddr>,
    flush_within: Duration,
) -> Result<(Client, ConnectionThread), ConnectError> {
    let (connected, result) = oneshot::channel();
    let (ends_when_dropped, ended) = oneshot::channel();
    let run = move || {
        let _muted = set_default(&Dispatch::none());
        // Without a runtime the caller's end of the channel is closed.
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(keep(options, addresses, connected, ended, flush_within));
    };
    let io = |error: std::io::Error| ConnectError::with_source(ConnectErrorKind::Io, error);
    thread("outbox-nats", run).map_err(io)?;
    let client =
        result.await.map_err(|_| io(std::io::Error::other("no runtime for the client")))?;
    Ok((client?, ConnectionThread { _ends_when_dropped: ends_when_dropped }))
}

/// Connects, and keeps the connection until its other end is dropped.
async fn keep(
    options: ConnectOptions,
    addresses: Vec<ServerAddr>,
    mut connected: oneshot::Sender<Result<Client, ConnectError>>,
    ended: oneshot::Receiver<()>,
    flush_within: Duration,
) {
    let client = tokio::select! {
        client = options.connect(addresses) => client,
        // The caller waits no longer.
        () = connected.closed() => return,
    };
    let kept = client.as_ref().ok().cloned();
    if connected.send(client).is_err() {
        return;
    }
    let Some(client) = kept else { return };
    // Nothing is ever sent: it ends with an error when the other end is dropped.
    let _ = ended.await;
    // It fails where the connection is lost.
    let _ = timeout(flush_within, client.flush()).await;
}
