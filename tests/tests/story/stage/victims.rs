//! Processes that are killed, stopped and resumed.

use super::part::{Part, RoutePart};
use std::net::SocketAddr;
use tests::processes::{Process, program};

/// Starts a process that plays a part, and returns when it does.
pub(crate) async fn victim(part: &Part) -> Process {
    let mut process = Process::start(program("victim").arg(serde_json::to_string(part).unwrap()));
    process.wait_for_line(super::SOON, "up").await;
    process
}

impl RoutePart {
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
