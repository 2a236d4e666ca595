//! What an operator has paused or slowed down, as the board obeys it.
//!
//! A paused route starts no event, as with an open breaker: its events wait in order, and are evicted
//! where there is no room. An event whose topic or key is paused is *held*: it stands at the head of
//! its key, and the key waits behind it. Held events take a quarter of a route's memory at most, so
//! that the others have their room and reading goes on. No attempt is counted for any of them.
//!
//! An event without a key has no key to wait in: while its topic is paused it gets one of a few
//! queues, so that it waits, is evicted and is read again as any other.
//!
//! An event whose start the database knows already has begun: it goes on under a pause.

mod token_bucket;
mod held;
mod live;

use crate::relay::board::{FastMap, RouteNo};
use crate::{
    event::EventId,
    outbox::{ControlScope, Controls, PartitionNo},
    transport::Route,
};
use std::{collections::BTreeMap, time::Instant};
use token_bucket::TokenBucket;
use xxhash_rust::xxh3::xxh3_64;

/// Queues for the events without a key of one partition and topic: so many of them are published at
/// once after the pause.
const KEYLESS_QUEUES: i64 = 64;

/// A pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pause {
    /// The instant at which it ends by itself.
    until: Option<Instant>,
}

impl Pause {
    fn is_over(self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// The controls of one route.
#[derive(Debug, Clone, Copy, Default)]
struct RouteControls {
    pause: Option<Pause>,
    /// The limit in events a second, with its bucket.
    limit: Option<(f64, TokenBucket)>,
}

/// The controls that the board obeys.
#[derive(Debug)]
pub(super) struct BoardControls {
    /// Whether the controls were read. Nothing is started before.
    known: bool,
    routes: Vec<RouteControls>,
    topics: BTreeMap<String, Pause>,
    /// By the key's hash.
    keys: FastMap<u64, Pause>,
}

impl BoardControls {
    pub(super) fn new(routes: usize) -> Self {
        Self {
            known: true,
            routes: vec![RouteControls::default(); routes],
            topics: BTreeMap::new(),
            keys: FastMap::default(),
        }
    }

    /// Takes the controls in force. A limit that stays keeps its bucket.
    fn set(&mut self, controls: &Controls, routes: &[Route], now: Instant) {
        self.known = true;
        let pause_of = |control: &crate::outbox::Control| Pause {
            until: control.ends_in.map(|left| now + left),
        };
        for (state, route) in self.routes.iter_mut().zip(routes) {
            state.pause = controls.pause(ControlScope::Route, &route.name).map(pause_of);
            state.limit = controls.rate(&route.name).map(|rate| match state.limit {
                Some((same, bucket)) if same.total_cmp(&rate).is_eq() => (same, bucket),
                _ => (rate, TokenBucket::new(rate, now)),
            });
        }
        let paused = |scope| {
            let of_scope = controls.0.iter().filter(move |control| control.scope == scope);
            of_scope.map(|control| (control.name.as_str(), pause_of(control)))
        };
        self.topics =
            paused(ControlScope::Topic).map(|(name, pause)| (name.to_owned(), pause)).collect();
        self.keys = paused(ControlScope::Key)
            .map(|(key, pause)| (xxh3_64(key.as_bytes()), pause))
            .collect();
    }

    /// Ends the pauses whose time is over; tells whether events were held by one of them.
    fn end_due(&mut self, now: Instant) -> bool {
        for route in &mut self.routes {
            route.pause.take_if(|pause| pause.is_over(now));
        }
        let held_by = self.topics.len() + self.keys.len();
        if held_by == 0 {
            return false;
        }
        self.topics.retain(|_, pause| !pause.is_over(now));
        self.keys.retain(|_, pause| !pause.is_over(now));
        self.topics.len() + self.keys.len() < held_by
    }

    /// Gives the instant at which the next pause ends by itself.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let of_routes = self.routes.iter().filter_map(|route| route.pause);
        let all = of_routes.chain(self.topics.values().copied()).chain(self.keys.values().copied());
        all.filter_map(|pause| pause.until).min()
    }

    /// Tells whether the controls were read.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Tells whether a route is paused.
    pub(super) fn is_paused(&self, route: RouteNo) -> bool {
        self.routes[route].pause.is_some()
    }

    /// Tells whether an event is held: its topic or its key is paused.
    pub(super) fn holds(&self, topic: &str, key_hash: Option<u64>) -> bool {
        (!self.topics.is_empty() && self.topics.contains_key(topic))
            || (!self.keys.is_empty() && key_hash.is_some_and(|hash| self.keys.contains_key(&hash)))
    }

    /// Gives the hash of the queue in which an event without a key is held; `None` if its topic is
    /// not paused.
    pub(super) fn keyless_queue(
        &self,
        topic: &str,
        partition: PartitionNo,
        id: EventId,
    ) -> Option<u64> {
        if self.topics.is_empty() || !self.topics.contains_key(topic) {
            return None;
        }
        // No key has a control character, so that no key's hash is meant.
        let name = format!("\0{topic}\0{}\0{}", partition.0, id.0.rem_euclid(KEYLESS_QUEUES));
        Some(xxh3_64(name.as_bytes()))
    }

    /// Tells how many events of a route may start: all (`None`), or so many.
    pub(super) fn startable(&self, route: RouteNo, now: Instant) -> Option<usize> {
        let RouteControls { pause, limit } = &self.routes[route];
        match pause {
            Some(_) => Some(0),
            None => limit.as_ref().map(|(_, bucket)| bucket.tokens(now)),
        }
    }

    /// Counts events of a route that have started.
    pub(super) fn started(&mut self, route: RouteNo, events: usize, now: Instant) {
        if let Some((_, bucket)) = self.routes[route].limit.as_mut().filter(|_| events > 0) {
            bucket.take(events, now);
        }
    }

    /// Gives the instant from which on the limit of a route lets an event start.
    pub(super) fn refill_at(&self, route: RouteNo) -> Option<Instant> {
        self.routes[route].limit.as_ref().map(|(_, bucket)| bucket.refill_at())
    }

    /// Gives the limit of a route in events a second.
    fn limit(&self, route: RouteNo) -> Option<f64> {
        self.routes[route].limit.map(|(rate, _)| rate)
    }
}
