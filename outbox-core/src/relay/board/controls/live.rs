//! What the board tells of its routes to operators.

use crate::relay::board::{Board, RouteNo, entries::LegState, queues::RouteQueue};
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
            for leg in entry.legs.iter().filter(|leg| leg.state() == LegState::InFlight) {
                in_flight[leg.route] += 1;
            }
        }
        let routes = self.queues.iter().zip(in_flight).enumerate();
        RelayLive {
            routes: routes
                .map(|(route, (queue, in_flight))| self.route_live(route, queue, in_flight, now))
                .collect(),
            omitted: 0,
            in_memory: self.entries.len() as u64,
            waits_for: None,
        }
    }

    fn route_live(
        &self,
        route: RouteNo,
        queue: &RouteQueue,
        in_flight: u64,
        now: Instant,
    ) -> RouteLive {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let confirmed_at = queue.answers.confirmed_at();
        let last_failure = queue
            .last_failure
            .as_ref()
            .filter(|(_, _, at)| confirmed_at.is_none_or(|confirmed| confirmed <= *at))
            .map(|(class, text, at)| {
                LastFailure::new(text, *class, now.saturating_duration_since(*at))
            });
        RouteLive {
            route: self.routes[route].name.to_string(),
            breaker: match queue.breaker.state() {
                BreakerState::Closed => "closed",
                BreakerState::Open { .. } => "open",
                BreakerState::Probing => "half_open",
            }
            .to_owned(),
            probe_in_ms: queue
                .breaker
                .probe_at()
                .map(|at| millis(at.saturating_duration_since(now))),
            open_for_ms: queue
                .breaker
                .opened_at()
                .map(|at| millis(now.saturating_duration_since(at))),
            in_flight,
            waiting: (queue.events as u64).saturating_sub(in_flight),
            delivered: queue.answers.successes(),
            retried: queue.retried,
            dead: queue.dead,
            rate: 0.0,
            last_failure,
            paused: self.controls.is_paused(route),
            limit: self.controls.limit(route),
            handovers: HandoverTimes::default(),
        }
    }
}
