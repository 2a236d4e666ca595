//! Faults of a relay's configuration.

use super::RelaySettings;
use crate::{event::TextRule, failure::FailureClass, transport::Route};
use std::{collections::HashSet, time::Duration};

/// Longest route name in bytes: the width of its column.
const MAX_NAME: usize = 63;
/// The rule for a route's name, which has no spaces either.
const NAME: TextRule = TextRule::up_to(MAX_NAME);
/// Longest lease: nobody else publishes the events of a relay that has died before its end.
const LONGEST_LEASE: Duration = Duration::from_hours(24);
/// Shortest time of a sample: a row takes two statements.
const SHORTEST_SAMPLE: Duration = Duration::from_millis(100);

/// A fault of a relay's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelayFault {
    /// The relay has no route.
    #[error("it has no route; add one with `.route(name, topic(..), publisher)`")]
    NoRoute,
    /// A route's name does not fit its column.
    #[error("the route name `{0}` must have 1 to {MAX_NAME} bytes without spaces")]
    RouteName(String),
    /// Two routes have one name.
    #[error("two routes are named `{0}`; names are stored and must be unique")]
    DuplicateRoute(String),
    /// A setting is out of range.
    #[error("{0}")]
    Setting(String),
    /// A publisher cannot work as it is configured.
    #[error("the publisher of route `{route}` is configured wrongly: {error}")]
    Publisher {
        /// The route.
        route: String,
        /// What the publisher says.
        error: String,
    },
}

/// Finds all faults of a relay, those of its publishers included. A destination that is down is no
/// fault of the configuration.
pub(super) fn of_relay(routes: &[Route], config: &RelaySettings) -> Vec<RelayFault> {
    let mut faults = Vec::new();
    if routes.is_empty() {
        faults.push(RelayFault::NoRoute);
    }
    let mut seen = HashSet::new();
    for route in routes {
        let name = &*route.name;
        if !NAME.allows(name) || name.contains(char::is_whitespace) {
            faults.push(RelayFault::RouteName(name.to_owned()));
        }
        if !seen.insert(name) {
            faults.push(RelayFault::DuplicateRoute(name.to_owned()));
        }
        let mut setting = |fault: String| faults.push(RelayFault::Setting(fault));
        if route.deadline.is_zero() {
            setting(format!("the deadline of route `{name}` is zero"));
        }
        if route.max_in_memory == 0 {
            setting(format!("`max_in_memory` of route `{name}` is zero"));
        }
    }
    faults.extend(of_config(config).map(RelayFault::Setting));
    faults.extend(routes.iter().filter_map(of_publisher));
    faults
}

fn of_config(config: &RelaySettings) -> impl Iterator<Item = String> {
    let RelaySettings { lease, poll, sample_every, .. } = *config;
    let lease = match lease {
        lease if lease < Duration::from_millis(300) => Some(format!(
            "a lease of {lease:?} is too short to be renewed in time; 300 ms at least"
        )),
        lease if lease > LONGEST_LEASE => Some(format!(
            "a lease of {lease:?} is too long, since the events of a relay that has died wait for \
             its end; 24 h at most"
        )),
        _ => None,
    };
    let poll = (poll.is_zero() || poll > Duration::from_hours(1))
        .then(|| format!("a poll of {poll:?} is out of range; up to an hour"));
    let samples =
        (sample_every < SHORTEST_SAMPLE || sample_every > Duration::from_hours(1)).then(|| {
            format!("a `sample_every` of {sample_every:?} is out of range; 100 ms to an hour")
        });
    let counts = [
        ("per_route", config.per_route),
        ("per_key", config.per_key),
        ("read_batch", config.read_batch),
    ];
    let counts = counts
        .into_iter()
        .filter(|(_, value)| *value < 2)
        .map(|(what, _)| format!("`{what}` must be at least 2"));
    lease.into_iter().chain(poll).chain(samples).chain(counts)
}

fn of_publisher(route: &Route) -> Option<RelayFault> {
    let error = route.publisher.check().err()?;
    (error.class() == FailureClass::Permanent)
        .then(|| RelayFault::Publisher { route: route.name.to_string(), error: error.full_text() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_out_of_range_is_a_fault_that_says_the_range() {
        for (lease, expected) in [
            (Duration::from_millis(299), Some("300 ms at least")),
            (Duration::from_millis(300), None),
            (Duration::from_hours(24), None),
            (Duration::from_hours(25), Some("24 h at most")),
            (Duration::MAX, Some("24 h at most")),
        ] {
            let config = RelaySettings { lease, ..RelaySettings::default() };
            let faults: Vec<String> = of_config(&config).collect();
            let says = |range: &&str| faults.len() == 1 && faults[0].contains(range);
            assert!(expected.as_ref().map_or(faults.is_empty(), says), "{lease:?}: {faults:?}");
        }
    }
}
