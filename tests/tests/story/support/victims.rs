//! Processes that are killed, stopped and resumed.

use super::config::{VictimConfig, VictimRoute};
use std::{net::SocketAddr, time::Duration};
use tests::{
    holds_within,
    processes::{Process, program},
};

/// Starts a process with a configuration, and returns when it is up.
pub(crate) async fn victim(config: &VictimConfig) -> Process {
    let mut process = Process::start(program("victim").arg(serde_json::to_string(config).unwrap()));
    process.wait_for_line(super::SOON, "up").await;
    process
}

/// Runs a process with a configuration, and restarts it 0.2 s after each death until a condition holds;
/// then terminates it. Gives how often it died.
pub(crate) async fn supervised(config: &VictimConfig, is_over: impl AsyncFn() -> bool) -> usize {
    let mut deaths = 0;
    loop {
        let mut process =
            Process::start(program("victim").arg(serde_json::to_string(config).unwrap()));
        let mut is_done = false;
        let ended = async || {
            is_done = is_over().await;
            is_done || !process.is_running()
        };
        assert!(holds_within(super::LATE, ended).await, "it goes on after {deaths} deaths");
        if is_done {
            process.terminate(super::SOON).await;
            return deaths;
        }
        deaths += 1;
        assert!(deaths < 40, "it is over after a few deaths");
        tokio::time::sleep(RESTARTS_AFTER).await;
    }
}

/// The pause of a supervisor before it restarts a process.
const RESTARTS_AFTER: Duration = Duration::from_millis(200);

impl VictimRoute {
    /// A route to a destination, with little in flight.
    pub(crate) fn to(name: &str, to: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            to: Some(to),
            at_most_once: false,
            parks: false,
            max_batch: 10,
            max_in_flight: 2,
            backoff_ms: 20,
        }
    }

    /// A route to the consumer inside the victim.
    pub(crate) fn inside(name: &str) -> Self {
        Self { to: None, ..Self::to(name, SocketAddr::from(([127, 0, 0, 1], 0))) }
    }

    /// How many events may be handed to its publisher and not settled, when none is settled in between.
    pub(crate) fn in_flight(&self) -> usize {
        self.max_batch * self.max_in_flight
    }
}
