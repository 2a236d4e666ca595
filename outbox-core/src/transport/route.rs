//! Routes: which events go to which destination, and with which guarantee and retries.

use super::{Limits, Publisher};
use crate::{
    event::Message,
    failure::{DEFAULT_GIVE_UP_REJECTED, RetryPolicy},
};
use std::{fmt, sync::Arc, time::Duration};
use xxhash_rust::xxh3::Xxh3;

/// How long one batch may take until its destination has confirmed. Transports have shorter deadlines for each message;
/// this one is the last resort against a publisher that never returns.
pub const DEFAULT_PUBLISH_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of events of one route that a relay holds in memory: some seconds of work at 10 MiB/s, and a small process still.
pub const DEFAULT_MAX_IN_MEMORY: usize = 32 << 20;

/// The delivery guarantee of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guarantee {
    /// Published until the destination confirms; may repeat.
    #[default]
    AtLeastOnce,
    /// Finished first, then published once; may lose, never repeats, promises no order across a takeover.
    AtMostOnce,
}

/// What happens to the rest of a key when its head becomes a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenDead {
    /// The rest is delivered; the dead letter is out of the order.
    #[default]
    Continue,
    /// The rest of the key waits until the head is redriven or discarded.
    Park,
}

/// Which events a route takes.
///
/// ```
/// # use outbox_core::transport::topic;
/// let invoices = topic("orders").or_topic("refunds").of_type("order.placed").of_type("refund.issued");
/// assert!(invoices.takes_envelope("refunds", "refund.issued"));
/// assert!(!invoices.takes_envelope("refunds", "refund.requested"));
/// ```
#[derive(Clone, Default)]
pub struct Selector {
    topics: Vec<String>,
    types: Vec<String>,
    predicate: Option<(u32, Predicate)>,
}

type Predicate = Arc<dyn Fn(&Message) -> bool + Send + Sync>;

/// Takes the events of a topic.
///
/// ```
/// # use outbox_core::transport::topic;
/// let orders = topic("orders");
/// assert!(orders.takes_envelope("orders", "order.placed"));
/// assert!(!orders.takes_envelope("payments", "payment.captured"));
/// ```
#[must_use]
pub fn topic(name: impl Into<String>) -> Selector {
    Selector { topics: vec![name.into()], ..Selector::default() }
}

/// Takes the events of a type.
///
/// ```
/// # use outbox_core::transport::event_type;
/// assert!(event_type("order.placed").takes_envelope("any-topic", "order.placed"));
/// ```
#[must_use]
pub fn event_type(name: impl Into<String>) -> Selector {
    Selector { types: vec![name.into()], ..Selector::default() }
}

/// Takes every event.
///
/// ```
/// # use outbox_core::transport::everything;
/// assert!(everything().takes_envelope("orders", "order.placed")); // such as the route of an audit
/// ```
#[must_use]
pub fn everything() -> Selector {
    Selector::default()
}

impl Selector {
    /// Takes a further topic too.
    ///
    /// ```
    /// # use outbox_core::transport::topic;
    /// let money = topic("payments").or_topic("refunds");
    /// assert!(money.takes_envelope("refunds", "refund.issued"));
    /// ```
    #[must_use]
    pub fn or_topic(mut self, name: impl Into<String>) -> Self {
        self.topics.push(name.into());
        self
    }

    /// Takes, of the topics chosen so far, only the given types (call it once for each).
    ///
    /// ```
    /// # use outbox_core::transport::topic;
    /// let selector = topic("orders").of_type("order.placed").of_type("order.cancelled");
    /// assert!(selector.takes_envelope("orders", "order.cancelled"));
    /// assert!(!selector.takes_envelope("orders", "order.shipped"));
    /// ```
    #[must_use]
    pub fn of_type(mut self, name: impl Into<String>) -> Self {
        self.types.push(name.into());
        self
    }

    /// Takes, of the events chosen so far, those for which the predicate holds.
    ///
    /// Relays on one database must agree on their routes, and code cannot be compared: give the predicate a version and
    /// raise it at every change.
    ///
    /// ```
    /// # use outbox_core::{event::Message, transport::topic};
    /// # struct OrderPlaced { order_id: i64 }
    /// # impl outbox_core::event::OutboxEvent for OrderPlaced {
    /// #     fn meta(&self) -> outbox_core::event::EventMeta<'_> {
    /// #         outbox_core::event::EventMeta::new("order.placed").topic("orders").key(Some(self.order_id.to_string()))
    /// #     }
    /// #     fn payload(&self) -> Result<bytes::Bytes, outbox_core::event::EncodeError> {
    /// #         Ok(format!(r#"{{"order_id":{}}}"#, self.order_id).into())
    /// #     }
    /// # }
    /// let selector = topic("orders").only_if(1, |message| message.headers.get("tenant") == Some("acme"));
    /// assert!(!selector.takes(&Message::for_test(&OrderPlaced { order_id: 7 })?), "no tenant");
    /// # Ok::<(), outbox_core::event::EncodeError>(())
    /// ```
    #[must_use]
    pub fn only_if(
        mut self,
        version: u32,
        predicate: impl Fn(&Message) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.predicate = Some((version, Arc::new(predicate)));
        self
    }

    /// Tells whether more than topic and type of an event has to be known: there is a predicate.
    pub(crate) const fn reads_messages(&self) -> bool {
        self.predicate.is_some()
    }

    /// Gives the topics that it takes; none where it takes any.
    #[must_use]
    pub fn topics(&self) -> &[String] {
        &self.topics
    }

    /// Tells whether an event is taken.
    #[must_use]
    pub fn takes(&self, message: &Message) -> bool {
        self.takes_envelope(&message.topic, &message.event_type)
            && self.predicate.as_ref().is_none_or(|(_, holds)| holds(message))
    }

    /// Tells whether topic and type are taken, the predicate left aside.
    #[must_use]
    pub fn takes_envelope(&self, topic: &str, event_type: &str) -> bool {
        (self.topics.is_empty() || self.topics.iter().any(|t| t == topic))
            && (self.types.is_empty() || self.types.iter().any(|t| t == event_type))
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selector")
            .field("topics", &self.topics)
            .field("types", &self.types)
            .field("predicate", &self.predicate.as_ref().map(|(version, _)| version))
            .finish()
    }
}

/// One destination of a relay.
///
/// ```
/// # use outbox_core::{failure::RetryPolicy, relay::RelayBuilder, transport::{Publisher, Route, topic}};
/// # use std::time::Duration;
/// # fn example<'a>(relay: RelayBuilder<'a>, billing: impl Publisher) -> RelayBuilder<'a> {
/// let route = Route::new("billing", topic("orders"), billing)
///     .retry(RetryPolicy::default().max_backoff(Duration::from_mins(1)))
///     .park_when_dead();
/// relay.add_route(route)
/// # }
/// ```
#[derive(Clone)]
pub struct Route {
    pub(crate) name: Arc<str>,
    pub(crate) selector: Selector,
    pub(crate) publisher: Arc<dyn Publisher>,
    pub(crate) limits: Limits,
    pub(crate) policy: RetryPolicy,
    pub(crate) type_policies: Vec<(String, RetryPolicy)>,
    pub(crate) guarantee: Guarantee,
    pub(crate) when_dead: WhenDead,
    pub(crate) deadline: Duration,
    pub(crate) max_in_memory: usize,
    pub(crate) give_up_rejected: Duration,
}

impl Route {
    /// Makes a route. The name is stable: it is stored with every event that waits for it.
    pub fn new(name: impl Into<Arc<str>>, selector: Selector, publisher: impl Publisher) -> Self {
        Self::shared(name, selector, Arc::new(publisher))
    }

    /// Makes a route over a publisher that is shared with others.
    ///
    /// ```
    /// # use outbox_core::transport::{Publisher, Route, topic};
    /// # use std::sync::Arc;
    /// # fn example(rabbit: Arc<dyn Publisher>) -> [Route; 2] {
    /// [
    ///     Route::shared("orders", topic("orders"), rabbit.clone()).park_when_dead(),
    ///     Route::shared("metrics", topic("metrics"), rabbit).at_most_once(),
    /// ]
    /// # }
    /// ```
    pub fn shared(
        name: impl Into<Arc<str>>,
        selector: Selector,
        publisher: Arc<dyn Publisher>,
    ) -> Self {
        Self {
            name: name.into(),
            selector,
            limits: publisher.limits(),
            publisher,
            policy: RetryPolicy::default(),
            type_policies: Vec::new(),
            guarantee: Guarantee::default(),
            when_dead: WhenDead::default(),
            deadline: DEFAULT_PUBLISH_DEADLINE,
            max_in_memory: DEFAULT_MAX_IN_MEMORY,
            give_up_rejected: DEFAULT_GIVE_UP_REJECTED,
        }
    }

    /// Sets the retry policy of the route.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the retry policy of one event type on this route. It wins over the event's own and the route's.
    ///
    /// ```
    /// # use outbox_core::{failure::RetryPolicy, transport::Route};
    /// # use std::time::Duration;
    /// # fn example(route: Route) -> Route {
    /// route.retry_type("order.placed", RetryPolicy::attempts(5, Duration::from_secs(10)))
    /// # }
    /// ```
    #[must_use]
    pub fn retry_type(mut self, event_type: impl Into<String>, policy: RetryPolicy) -> Self {
        self.type_policies.push((event_type.into(), policy));
        self
    }

    /// Publishes at most once: may lose, never repeats.
    ///
    /// ```
    /// # use outbox_core::transport::{Publisher, Route, topic};
    /// # fn example(screen: impl Publisher) -> Route {
    /// Route::new("screen", topic("prices"), screen).at_most_once() // a stale price is worth nothing
    /// # }
    /// ```
    #[must_use]
    pub fn at_most_once(mut self) -> Self {
        self.guarantee = Guarantee::AtMostOnce;
        self
    }

    /// Lets the rest of a key wait when its head becomes a dead letter.
    ///
    /// ```
    /// # use outbox_core::transport::{Publisher, Route, topic};
    /// # fn example(ledger: impl Publisher) -> Route {
    /// Route::new("ledger", topic("bookings"), ledger).park_when_dead() // no booking overtakes a lost one
    /// # }
    /// ```
    #[must_use]
    pub fn park_when_dead(mut self) -> Self {
        self.when_dead = WhenDead::Park;
        self
    }

    /// Sets how long one publish may take until it is confirmed, [30 s](DEFAULT_PUBLISH_DEADLINE) unless set. It ends
    /// each message on its own: what was confirmed by then stands. A message that was not counts an attempt where others
    /// were confirmed meanwhile; where none was, the destination counts as down. It is published alone from then on.
    ///
    /// ```
    /// # use outbox_core::transport::Route;
    /// # use std::time::Duration;
    /// # fn example(route: Route) -> Route {
    /// route.deadline(Duration::from_mins(2)) // a slow partner; its publisher's timeout is shorter
    /// # }
    /// ```
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how many bytes of events of this route a relay keeps in memory, from 1, [32 MiB](DEFAULT_MAX_IN_MEMORY) unless
    /// set; one event is kept whatever its size. The relay reads further events again when there is room.
    ///
    /// ```
    /// # use outbox_core::transport::Route;
    /// # fn example(route: Route) -> Route {
    /// route.max_in_memory(128 << 20) // events with scans
    /// # }
    /// ```
    #[must_use]
    pub fn max_in_memory(mut self, bytes: usize) -> Self {
        self.max_in_memory = bytes;
        self
    }

    /// Sets after how long an event becomes a dead letter that alone is rejected, from its first rejection in this process,
    /// [24 h](DEFAULT_GIVE_UP_REJECTED) unless set.
    ///
    /// A permanent failure makes an event a dead letter at once only while the destination accepts others: where it is
    /// rejected between two confirmations of others and once more. Where nothing is confirmed, the destination is wrong, not the events: they
    /// wait, in order. Under a retry policy without an end an event that alone is rejected stays, with a warning.
    ///
    /// ```
    /// # use outbox_core::transport::Route;
    /// # use std::time::Duration;
    /// # fn example(route: Route) -> Route {
    /// route.give_up_rejected(Duration::from_hours(1))
    /// # }
    /// ```
    #[must_use]
    pub fn give_up_rejected(mut self, after: Duration) -> Self {
        self.give_up_rejected = after;
        self
    }

    /// Sets the limits of the destination, in place of the publisher's.
    ///
    /// ```
    /// # use outbox_core::transport::{Limits, Publisher, Route, topic};
    /// # fn example(billing: impl Publisher) -> Route {
    /// let limits = Limits::default().max_payload(262_144).max_in_flight(1);
    /// Route::new("billing", topic("orders"), billing).limits(limits)
    /// # }
    /// ```
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Gives the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the limits of its destination.
    #[must_use]
    pub fn limits_of(&self) -> Limits {
        self.limits
    }

    /// Gives its selector.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Gives the policy for an event: of its type on this route, else its own, else the route's.
    #[must_use]
    pub fn policy_for(&self, message: &Message) -> RetryPolicy {
        self.type_policies
            .iter()
            .find(|(t, _)| *t == message.event_type)
            .map(|(_, p)| *p)
            .or(message.retry)
            .unwrap_or(self.policy)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("name", &self.name)
            .field("selector", &self.selector)
            .field("guarantee", &self.guarantee)
            .finish_non_exhaustive()
    }
}

/// Gives the hash by which relays compare their routes: names, topics, types, predicate versions, guarantees, and the
/// destinations of publishers that [name](Publisher::destination) them.
#[must_use]
pub fn route_set_hash(routes: &[Route]) -> u64 {
    let text = |r: &Route| {
        let text = format!("{:?}|{:?}|{:?}", r.name, r.selector, r.guarantee);
        match r.publisher.destination() {
            Some(destination) => format!("{text}|{destination:?}"),
            None => text,
        }
    };
    let mut texts: Vec<String> = routes.iter().map(text).collect();
    texts.sort();
    let mut hash = Xxh3::new();
    for text in texts {
        hash.update(text.as_bytes());
        hash.update(&[0xff]);
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{PublishError, Receipt};
    use async_trait::async_trait;

    struct To(Option<&'static str>);

    #[async_trait]
    impl Publisher for To {
        async fn publish(&self, _: &Message) -> Result<Receipt, PublishError> {
            Ok(Receipt::new())
        }
        fn destination(&self) -> Option<String> {
            self.0.map(str::to_owned)
        }
    }

    #[test]
    fn relays_agree_only_where_name_selector_guarantee_and_destination_of_all_routes_do() {
        let route = || Route::new("billing", topic("orders"), To(Some("billing.example/events")));
        let other = || Route::new("ledger", topic("payments"), To(None));
        let ours = route_set_hash(&[route(), other()]);
        assert_eq!(ours, route_set_hash(&[other(), route()]), "whatever their order");
        assert_eq!(
            ours,
            route_set_hash(&[route().max_in_memory(1), other()]),
            "settings are each relay's own"
        );
        for (what, routes) in [
            (
                "name",
                vec![
                    Route::new("bills", topic("orders"), To(Some("billing.example/events"))),
                    other(),
                ],
            ),
            (
                "topic",
                vec![
                    Route::new("billing", topic("order"), To(Some("billing.example/events"))),
                    other(),
                ],
            ),
            ("guarantee", vec![route().at_most_once(), other()]),
            (
                "host",
                vec![
                    Route::new("billing", topic("orders"), To(Some("billing.test/events"))),
                    other(),
                ],
            ),
            (
                "path",
                vec![
                    Route::new("billing", topic("orders"), To(Some("billing.example/event"))),
                    other(),
                ],
            ),
            ("destination", vec![Route::new("billing", topic("orders"), To(None)), other()]),
            ("count", vec![route()]),
        ] {
            assert_ne!(ours, route_set_hash(&routes), "another {what}");
        }
    }
}
