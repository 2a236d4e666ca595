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
    outlives_terminal: bool,
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
            // Before the listeners, which take the place of what the signals did.
            outlives_terminal: outlives_terminal(),
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

    /// Waits for a signal that ends a command which has no file to read again: any, but not SIGHUP
    /// where the process was started to outlive its terminal.
    pub(crate) async fn stop(&mut self) {
        while self.next().await == Asks::HangUp && self.outlives_terminal {}
    }
}

/// Tells whether the process was started with SIGHUP ignored, as `nohup` starts it.
#[cfg(target_os = "linux")]
fn outlives_terminal() -> bool {
    let status = std::fs::read_to_string("/proc/self/status");
    status.is_ok_and(|status| ignores_hang_up(&status))
}

#[cfg(all(unix, not(target_os = "linux")))]
const fn outlives_terminal() -> bool {
    false
}

/// Reads from the status of a process whether it ignores SIGHUP, which is the first signal.
#[cfg(target_os = "linux")]
fn ignores_hang_up(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 == 1)
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

    pub(crate) async fn stop(&mut self) {
        self.next().await;
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ignores_that_its_terminal_hangs_up_is_known_by_its_status() {
        for (status, ignores) in [
            ("SigBlk:\t0000000000000001\nSigIgn:\t0000000000000001\n", true),
            ("Name:\toutbox\nSigIgn:\t0000000000001005\nSigCgt:\t0000000000000000\n", true),
            ("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n", false),
            ("SigIgn:\tx\n", false),
            ("", false),
        ] {
            assert_eq!(ignores_hang_up(status), ignores, "{status:?}");
        }
    }
}
