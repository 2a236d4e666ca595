//! The signals that a command obeys. Whoever waits for one makes a [`Signals`] before its work
//! begins: from the first on, a signal does not end the process by itself any more.

use crate::error::CliError;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Ctrl-C or SIGTERM.
    Stop,
    /// SIGHUP: the terminal was closed, or a service is to read its file again.
    HangUp,
}

/// The signals since it was made: none is lost between two waits.
#[cfg(unix)]
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn new() -> Result<Self, CliError> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(CliError::Signals);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal.
    pub(crate) async fn next(&mut self) -> Asks {
        tokio::select! {
            _ = self.terminate.recv() => Asks::Stop,
            _ = self.interrupt.recv() => Asks::Stop,
            _ = self.hang_up.recv() => Asks::HangUp,
        }
    }
}

/// The signals: Ctrl-C alone.
#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new() -> Result<Self, CliError> {
        Ok(Self)
    }

    pub(crate) async fn next(&mut self) -> Asks {
        // A process that cannot listen for Ctrl-C stops.
        let _ = tokio::signal::ctrl_c().await;
        Asks::Stop
    }
}

impl Signals {
    /// Waits for any signal: what a command obeys that has no file to read again.
    pub(crate) async fn stop(&mut self) {
        self.next().await;
    }
}
