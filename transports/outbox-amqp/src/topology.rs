//! Exchanges, queues and bindings from code, declared at every new connection and again when the
//! server has lost them.

use crate::{
    classify::Failure,
    config::{ConfigFault, MAX_NAME, name_fault},
    connection::AmqpConnection,
};
use lapin::{
    ExchangeKind,
    options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use std::{collections::BTreeSet, time::Duration};

/// The exchanges, queues and bindings that a publisher or subscriber declares. Everything is
/// durable.
///
/// The server does not change a queue that exists with other settings: it refuses the declaration,
/// and publishing or subscribing fails as unavailable with an error that names the difference.
///
/// ```
/// use outbox_amqp::{Exchange, Queue, Topology};
/// use std::time::Duration;
/// let topology = Topology::new()
///     .exchange(Exchange::topic("orders"))
///     .queue(Queue::quorum("billing").bind("orders", "order.*").dead_letter_to("billing.dead").ttl(Duration::from_hours(24)))
///     .queue(Queue::quorum("billing.dead"));
/// # let _ = topology;
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    exchanges: Vec<Exchange>,
    queues: Vec<Queue>,
}

/// An exchange: publishers send messages to it, and it routes them to queues by its kind and
/// bindings.
///
/// ```
/// # use outbox_amqp::{Exchange, Queue, Topology};
/// let topology = Topology::new()
///     .exchange(Exchange::fanout("unrouted"))
///     .exchange(Exchange::topic("orders").alternate("unrouted")) // nothing is returned
///     .queue(Queue::quorum("unrouted").bind("unrouted", ""));
/// # let _ = topology;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    name: String,
    kind: ExchangeKind,
    alternate: Option<String>,
    bindings: Vec<(String, String)>,
}

/// A queue: messages wait in it for a consumer.
///
/// ```
/// # use outbox_amqp::Queue;
/// # use std::time::Duration;
/// let billing = Queue::quorum("billing")
///     .bind("orders", "order.placed")
///     .bind("orders", "order.cancelled")
///     .dead_letter_to("billing.dead")
///     .max_length(100_000);
/// # let _ = billing;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    name: String,
    quorum: bool,
    bindings: Vec<(String, String)>,
    dead_letter: Option<(String, String)>,
    drop_head: bool,
    ttl: Option<Duration>,
    expires: Option<Duration>,
    max_length: Option<u32>,
    max_bytes: Option<u64>,
    delivery_limit: Option<u32>,
    single_active_consumer: bool,
}

impl Topology {
    /// Makes an empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an exchange.
    #[must_use]
    pub fn exchange(mut self, exchange: Exchange) -> Self {
        self.exchanges.push(exchange);
        self
    }

    /// Adds a queue.
    #[must_use]
    pub fn queue(mut self, queue: Queue) -> Self {
        self.queues.push(queue);
        self
    }

    /// Tells whether it declares queues, and not exchanges alone.
    pub(crate) fn has_queues(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Tells whether a queue counts deliveries; assumes so of every queue that is not declared as
    /// classic.
    pub(crate) fn counts_deliveries(&self, queue: &str) -> bool {
        self.queues.iter().find(|known| known.name == queue).is_none_or(|known| known.quorum)
    }

    /// Lists what is wrong with it.
    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let (mut exchanges, mut queues) = (BTreeSet::new(), BTreeSet::new());
        for Exchange { name, alternate, bindings, .. } in &self.exchanges {
            faults.extend(name_fault("exchange", name));
            faults
                .extend(alternate.iter().filter_map(|name| name_fault("alternate exchange", name)));
            faults.extend(bindings.iter().flat_map(binding_faults));
            if !exchanges.insert(name) {
                faults.push(ConfigFault::Twice { what: "exchange", name: name.clone() });
            }
        }
        for queue in &self.queues {
            queue.faults(&mut faults);
            if !queues.insert(&queue.name) {
                faults.push(ConfigFault::Twice { what: "queue", name: queue.name.clone() });
            }
        }
        faults
    }

    /// Declares all of it.
    pub(crate) async fn declare(&self, connection: &AmqpConnection) -> Result<(), Failure> {
        if self.exchanges.is_empty() && self.queues.is_empty() {
            return Ok(());
        }
        let channel = connection.channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        for exchange in &self.exchanges {
            let (name, kind) = (name(&exchange.name)?, exchange.kind.clone());
            let declared = channel.exchange_declare(name, kind, durable, exchange.arguments());
            connection.request("declared no exchange", declared).await?;
        }
        for exchange in &self.exchanges {
            for (source, key) in &exchange.bindings {
                let options = ExchangeBindOptions::default();
                let (to, from, key) = (name(&exchange.name)?, name(source)?, name(key)?);
                let bound = channel.exchange_bind(to, from, key, options, FieldTable::default());
                connection.request("bound no exchange", bound).await?;
            }
        }
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        for queue in &self.queues {
            let declared = channel.queue_declare(name(&queue.name)?, durable, queue.arguments());
            connection.request("declared no queue", declared).await?;
            for (exchange, key) in &queue.bindings {
                let options = QueueBindOptions::default();
                let (queue, exchange, key) = (name(&queue.name)?, name(exchange)?, name(key)?);
                let bound =
                    channel.queue_bind(queue, exchange, key, options, FieldTable::default());
                connection.request("bound no queue", bound).await?;
            }
        }
        connection.request("closed no channel", channel.close(200, ShortString::default())).await
    }
}

impl Exchange {
    fn new(name: impl Into<String>, kind: ExchangeKind) -> Self {
        Self { name: name.into(), kind, alternate: None, bindings: Vec::new() }
    }

    /// Makes an exchange that routes by patterns of the routing key, such as `order.*` or
    /// `order.#`.
    #[must_use]
    pub fn topic(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Topic)
    }

    /// Makes an exchange that routes by the whole routing key.
    #[must_use]
    pub fn direct(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Direct)
    }

    /// Makes an exchange that routes to all its queues.
    #[must_use]
    pub fn fanout(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Fanout)
    }

    /// Routes messages without a queue to another exchange. The server then counts them as routed
    /// and does not return them.
    #[must_use]
    pub fn alternate(mut self, exchange: impl Into<String>) -> Self {
        self.alternate = Some(exchange.into());
        self
    }

    /// Binds the exchange to another one for a routing key.
    #[must_use]
    pub fn bind(mut self, source: impl Into<String>, routing_key: impl Into<String>) -> Self {
        self.bindings.push((source.into(), routing_key.into()));
        self
    }

    fn arguments(&self) -> FieldTable {
        let mut table = FieldTable::default();
        if let Some(alternate) = &self.alternate {
            table.insert("alternate-exchange".into(), long_string(alternate));
        }
        table
    }
}

impl Queue {
    fn new(name: impl Into<String>, quorum: bool) -> Self {
        Self {
            name: name.into(),
            quorum,
            bindings: Vec::new(),
            dead_letter: None,
            drop_head: false,
            ttl: None,
            expires: None,
            max_length: None,
            max_bytes: None,
            delivery_limit: None,
            single_active_consumer: false,
        }
    }

    /// Makes a quorum queue: replicated, on disk, counting deliveries, and dead-lettering at least
    /// once. The default choice.
    #[must_use]
    pub fn quorum(name: impl Into<String>) -> Self {
        Self::new(name, true)
    }

    /// Makes a classic queue: on one server only, and dead-lettering at most once.
    #[must_use]
    pub fn classic(name: impl Into<String>) -> Self {
        Self::new(name, false)
    }

    /// Binds the queue to an exchange for a routing key, or a pattern of one.
    #[must_use]
    pub fn bind(mut self, exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        self.bindings.push((exchange.into(), routing_key.into()));
        self
    }

    /// Dead-letters rejected, expired and too often delivered messages to another queue.
    ///
    /// A quorum queue does so at least once: it removes a message when the other queue has
    /// confirmed.
    #[must_use]
    pub fn dead_letter_to(self, queue: impl Into<String>) -> Self {
        self.dead_letter_through("", queue)
    }

    /// As [`dead_letter_to`](Self::dead_letter_to), through an exchange and with a routing key.
    #[must_use]
    pub fn dead_letter_through(
        mut self,
        exchange: impl Into<String>,
        routing_key: impl Into<String>,
    ) -> Self {
        self.dead_letter = Some((exchange.into(), routing_key.into()));
        self
    }

    /// Expires messages that have waited for longer.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Deletes the queue when no client has used it for so long.
    #[must_use]
    pub const fn expires(mut self, unused: Duration) -> Self {
        self.expires = Some(unused);
        self
    }

    /// Limits how many messages wait. At the limit the server refuses new ones, and their publishes
    /// fail as transient.
    #[must_use]
    pub const fn max_length(mut self, messages: u32) -> Self {
        self.max_length = Some(messages);
        self
    }

    /// Limits how many bytes wait.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Drops the oldest messages at a limit instead of refusing new ones.
    ///
    /// Such a queue may lose messages though their publishes were confirmed: without dead-lettering
    /// that is its purpose, and with it, dropped messages go to the other queue at most once,
    /// without a confirm.
    #[must_use]
    pub const fn drop_head(mut self) -> Self {
        self.drop_head = true;
        self
    }

    /// Drops or dead-letters a message that was returned so often. Only quorum queues count.
    #[must_use]
    pub const fn delivery_limit(mut self, returns: u32) -> Self {
        self.delivery_limit = Some(returns);
        self
    }

    /// Delivers to one consumer at a time; the others wait until it is gone.
    #[must_use]
    pub const fn single_active_consumer(mut self) -> Self {
        self.single_active_consumer = true;
        self
    }

    fn faults(&self, faults: &mut Vec<ConfigFault>) {
        faults.extend(name_fault("queue", &self.name));
        faults.extend(self.bindings.iter().flat_map(binding_faults));
        if let Some((exchange, key)) = &self.dead_letter
            && (exchange.len() > MAX_NAME
                || key.len() > MAX_NAME
                || (exchange.is_empty() && key.is_empty()))
        {
            faults.push(self.fault(
                "the exchange or queue for its dead letters must be named, in at most 255 bytes",
            ));
        }
        if self.drop_head && self.max_length.is_none() && self.max_bytes.is_none() {
            faults.push(self.fault("drop_head needs max_length or max_bytes"));
        }
        if self.delivery_limit.is_some() && !self.quorum {
            faults.push(self.fault("only quorum queues count deliveries"));
        }
        for (span, what) in
            [(self.ttl, "the ttl of a queue"), (self.expires, "the expiry of a queue")]
        {
            if span.is_some_and(|span| !(1..=u128::from(u32::MAX)).contains(&span.as_millis())) {
                faults.push(ConfigFault::Range { what, rule: "must have 1 ms to 49 days" });
            }
        }
    }

    fn fault(&self, problem: &'static str) -> ConfigFault {
        ConfigFault::Queue { queue: self.name.clone(), problem }
    }

    fn arguments(&self) -> FieldTable {
        let mut table = FieldTable::default();
        table.insert(
            "x-queue-type".into(),
            long_string(if self.quorum { "quorum" } else { "classic" }),
        );
        if let Some((exchange, key)) = &self.dead_letter {
            table.insert("x-dead-letter-exchange".into(), long_string(exchange));
            if !key.is_empty() {
                table.insert("x-dead-letter-routing-key".into(), long_string(key));
            }
        }
        let limited = self.max_length.is_some() || self.max_bytes.is_some();
        let safe = self.quorum && self.dead_letter.is_some() && !self.drop_head;
        if safe {
            table.insert("x-dead-letter-strategy".into(), long_string("at-least-once"));
        }
        // At-least-once dead-lettering asks for it, limit or not.
        if safe || limited {
            table.insert(
                "x-overflow".into(),
                long_string(if self.drop_head { "drop-head" } else { "reject-publish" }),
            );
        }
        let millis = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        for (argument, value) in [
            ("x-message-ttl", self.ttl.map(millis)),
            ("x-expires", self.expires.map(millis)),
            ("x-max-length", self.max_length),
            ("x-delivery-limit", self.delivery_limit),
        ] {
            if let Some(value) = value {
                table.insert(argument.into(), AMQPValue::LongLongInt(value.into()));
            }
        }
        if let Some(bytes) = self.max_bytes {
            table.insert(
                "x-max-length-bytes".into(),
                AMQPValue::LongLongInt(bytes.try_into().unwrap_or(i64::MAX)),
            );
        }
        if self.single_active_consumer {
            table.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        }
        table
    }
}

fn binding_faults((exchange, key): &(String, String)) -> Vec<ConfigFault> {
    let rule = "must have at most 255 bytes";
    let key_fault = (key.len() > MAX_NAME).then(|| ConfigFault::Name {
        what: "routing key",
        name: key.chars().take(64).collect(),
        rule,
    });
    name_fault("exchange", exchange).into_iter().chain(key_fault).collect()
}

fn long_string(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

/// Converts a name, which the publisher or subscriber checked when it was built.
fn name(text: &str) -> Result<ShortString, Failure> {
    ShortString::try_new(text).map_err(|error| Failure::unavailable(error.to_string()))
}
