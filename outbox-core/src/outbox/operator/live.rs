//! What running relays, consumers and coordinators write about themselves, for operators: a row each,
//! written after a renewal of the lease by a statement apart.

use super::{HandoverTimes, shown::shown};
use crate::{failure::FailureClass, outbox::StoreError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The last failure of a route or handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailure {
    /// Its text, without control characters and secrets, at most 300 bytes.
    pub text: String,
    /// Its class: `permanent`, `transient` or `unavailable`.
    pub class: String,
    /// Milliseconds from the failure to the write of the row.
    pub ago_ms: u64,
}

impl LastFailure {
    /// Longest text, in bytes.
    pub const LONGEST: usize = 300;

    /// Makes one of an error's text: without control characters and secrets, cut at a character.
    #[must_use]
    pub fn new(text: &str, class: FailureClass, ago: Duration) -> Self {
        Self {
            text: shown(text, Self::LONGEST),
            class: class.as_str().to_owned(),
            ago_ms: millis(ago),
        }
    }
}

/// Gives whole milliseconds.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A route of a running relay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteLive {
    /// The route's stable name.
    pub route: String,
    /// `closed`, `open` or `half_open`.
    pub breaker: String,
    /// Milliseconds until the next probe of an open breaker.
    pub probe_in_ms: Option<u64>,
    /// Milliseconds since the breaker opened.
    pub open_for_ms: Option<u64>,
    /// Events whose publish has not ended.
    pub in_flight: u64,
    /// Events in memory that wait for the route.
    pub waiting: u64,
    /// Events confirmed since the relay's start.
    pub delivered: u64,
    /// Counted failures since the relay's start.
    pub retried: u64,
    /// Events that became dead letters since the relay's start.
    #[serde(default)]
    pub dead: u64,
    /// Events confirmed a second, since the row was written before.
    pub rate: f64,
    /// The last failure, until an event is confirmed after it.
    pub last_failure: Option<LastFailure>,
    /// Whether the relay obeys a pause of the route.
    pub paused: bool,
    /// The limit that the relay obeys, in events a second.
    pub limit: Option<f64>,
    /// The confirmed events by the time that their handover took, since the relay's start.
    #[serde(default, skip_serializing_if = "HandoverTimes::is_empty")]
    pub handovers: HandoverTimes,
}

/// A running relay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RelayLive {
    /// Its routes, as many as fit the row.
    pub routes: Vec<RouteLive>,
    /// Routes that did not fit.
    pub omitted: usize,
    /// Events in memory.
    pub in_memory: u64,
    /// A relay with other routes for which this one waits.
    pub waits_for: Option<String>,
}

/// A running consumer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ConsumerLive {
    /// Names of its handlers, as many as fit the row.
    pub handlers: Vec<String>,
    /// Handlers that did not fit.
    pub omitted: usize,
    /// Deliveries being handled.
    pub in_flight: u64,
    /// Deliveries handled since the start.
    pub handled: u64,
    /// Counted failures since the start.
    pub failed: u64,
    /// Whether the consumer obeys a pause.
    pub paused: bool,
    /// Whether it stores deliveries before it runs them, after another instance has crashed.
    pub isolating: bool,
    /// The last failure of a handler, until a delivery was handled after it.
    pub last_failure: Option<LastFailure>,
}

/// A running coordinator of sagas.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SagasLive {
    /// Names and versions of its definitions, as many as fit the row.
    pub definitions: Vec<(String, u32)>,
    /// Definitions that did not fit.
    pub omitted: usize,
    /// Sagas that it is driving.
    pub driving: u64,
    /// Names of definitions whose pause it obeys.
    pub paused: Vec<String>,
}

/// What one running part writes about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Live {
    /// A relay.
    Relay(RelayLive),
    /// A consumer.
    Consumer(ConsumerLive),
    /// A coordinator of sagas.
    Sagas(SagasLive),
}

impl Live {
    /// Longest JSON of a row, in bytes.
    pub const LONGEST: usize = 16 * 1024;

    /// Gives the kind that is stored: `relay`, `consumer` or `sagas`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Relay(_) => "relay",
            Self::Consumer(_) => "consumer",
            Self::Sagas(_) => "sagas",
        }
    }

    /// Writes the JSON of the row, at most [`LONGEST`](Self::LONGEST) bytes: routes, handlers or
    /// definitions that do not fit are left out from the end, and counted.
    #[must_use]
    pub fn bounded_json(mut self) -> String {
        loop {
            // Strings and numbers only: it cannot fail, and an empty row is no loss.
            let json = serde_json::to_string(&self).unwrap_or_default();
            if json.len() <= Self::LONGEST || !self.omit_half() {
                return json;
            }
        }
    }

    /// Leaves out the last half of the list; `false` if there is none left.
    fn omit_half(&mut self) -> bool {
        fn halve<T>(list: &mut Vec<T>, omitted: &mut usize) -> bool {
            let keep = list.len() / 2;
            *omitted += list.len() - keep;
            let had = !list.is_empty();
            list.truncate(keep);
            had
        }
        match self {
            Self::Relay(relay) => halve(&mut relay.routes, &mut relay.omitted),
            Self::Consumer(consumer) => halve(&mut consumer.handlers, &mut consumer.omitted),
            Self::Sagas(sagas) => halve(&mut sagas.definitions, &mut sagas.omitted),
        }
    }
}

/// Stores the rows of running parts.
#[async_trait]
pub trait LiveStore: Send + Sync + 'static {
    /// Writes the row of a running part, in place of its former one. `id` is the relay's or
    /// instance's identity; `name` the consumer's name, else empty.
    async fn write_live(&self, id: &str, name: &str, live: Live) -> Result<(), StoreError>;

    /// Deletes the row of a part that ends.
    async fn delete_live(&self, id: &str) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_bounded_by_leaving_out_routes_and_says_how_many() {
        let route = |n: usize| RouteLive { route: format!("route-{n}"), ..RouteLive::default() };
        let all = RelayLive { routes: (0..1_000).map(route).collect(), ..RelayLive::default() };
        let json = Live::Relay(all).bounded_json();
        assert!(json.len() <= Live::LONGEST, "{}", json.len());
        let Live::Relay(read) = serde_json::from_str(&json).unwrap() else { panic!("{json}") };
        assert!(!read.routes.is_empty());
        assert_eq!(read.routes.len() + read.omitted, 1_000);
    }

    #[test]
    fn a_row_with_one_endless_name_is_still_bounded() {
        let endless = RouteLive { route: "r".repeat(20_000), ..RouteLive::default() };
        let json = Live::Relay(RelayLive { routes: vec![endless], ..RelayLive::default() });
        assert!(json.bounded_json().len() <= Live::LONGEST);
    }
}
