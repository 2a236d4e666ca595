//! What the board tells of its routes to operators.

use crate::relay::board::{Board, RouteNo, entries::LegState};
use crate::{
    failure::BreakerState,
    outbox::{HandoverTimes, LastFailure, RelayLive, RouteLive},
};
use std::time::{Duration, Instant};

impl Board {
    /// Describes the routes as they are now. Rates and times of handovers are not the board's to
    /// know.
    pub(crate) fn live(&self, now: Instant) -> RelayLive {
        let mut in_flight = vec![0; self.queues.len()];
        for (_, entry) in self.entries.iter() {
            for leg in entry.legs().iter().filter(|leg| leg.state() == LegState::InFlight) {
                in_flight[leg.route()] += 1;
            }
        }
        let routes = in_flight.into_iter().enumerate();
        RelayLive {
            routes: routes
                .map(|(route, in_flight)| self.route_live(route, in_flight, now))
                .collect(),
            omitted: 0,
            in_memory: self.entries.len() as u64,
            waits_for: None,
        }
    }

    fn route_live(&self, route: RouteNo, in_flight: u64, now: Instant) -> RouteLive {
        let (queue, destination) = (&self.queues[route], &self.destinations[route]);
        let breaker = destination.breaker();
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let confirmed_at = destination.answers().confirmed_at();
        let last_failure = destination
            .last_failure()
            .filter(|(_, _, at)| confirmed_at.is_none_or(|confirmed| confirmed <= *at))
            .map(|(class, text, at)| {
                LastFailure::new(text, *class, now.saturating_duration_since(*at))
            });
        RouteLive {
            route: self.routes[route].name.to_string(),
            breaker: match breaker.state() {
                BreakerState::Closed => "closed",
                BreakerState::Open { .. } => "open",
                BreakerState::Probing => "half_open",
            }
            .to_owned(),
            probe_in_ms: breaker.probe_at().map(|at| millis(at.saturating_duration_since(now))),
            open_for_ms: breaker.opened_at().map(|at| millis(now.saturating_duration_since(at))),
            in_flight,
            waiting: (queue.events() as u64).saturating_sub(in_flight),
            delivered: destination.answers().successes(),
            retried: destination.retried(),
            dead: destination.dead(),
            rate: 0.0,
            last_failure,
            paused: self.controls.is_paused(route),
            limit: self.controls.limit(route),
            handovers: HandoverTimes::default(),
        }
    }
}
