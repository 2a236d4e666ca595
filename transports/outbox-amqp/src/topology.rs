//! Exchanges, queues and bindings from code: declared when a connection is made, and again when the server has lost them.

use crate::{
    config::{ConfigFault, MAX_NAME, name_fault},
    connection::Link,
    verdict::Failure,
};
use lapin::{
    ExchangeKind,
    options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use std::{collections::BTreeSet, time::Duration};

/// What has to be there: exchanges, queues, and the bindings between them. Everything is durable.
///
/// A queue that exists already with other settings is not changed: the server refuses, and publishing or subscribing is
/// unavailable, naming what differs.
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

/// An exchange: where messages are published, and by what rule they go to queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    name: String,
    kind: ExchangeKind,
    alternate: Option<String>,
    bindings: Vec<(String, String)>,
}

/// A queue: where messages wait for a consumer.
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

    /// Tells whether queues are declared, and not exchanges alone.
    pub(crate) fn has_queues(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Tells whether a queue counts deliveries, as far as is known: all do that are not declared as classic.
    pub(crate) fn counts(&self, queue: &str) -> bool {
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
    pub(crate) async fn declare(&self, link: &Link) -> Result<(), Failure> {
        if self.exchanges.is_empty() && self.queues.is_empty() {
            return Ok(());
        }
        let channel = link.channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        for exchange in &self.exchanges {
            let (name, kind) = (name(&exchange.name)?, exchange.kind.clone());
            let declared = channel.exchange_declare(name, kind, durable, exchange.arguments());
            link.ask("declared no exchange", declared).await?;
        }
        for exchange in &self.exchanges {
            for (source, key) in &exchange.bindings {
                let options = ExchangeBindOptions::default();
                let (to, from, key) = (name(&exchange.name)?, name(source)?, name(key)?);
                let bound = channel.exchange_bind(to, from, key, options, FieldTable::default());
                link.ask("bound no exchange", bound).await?;
            }
        }
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        for queue in &self.queues {
            let declared = channel.queue_declare(name(&queue.name)?, durable, queue.arguments());
            link.ask("declared no queue", declared).await?;
            for (exchange, key) in &queue.bindings {
                let options = QueueBindOptions::default();
                let (queue, exchange, key) = (name(&queue.name)?, name(exchange)?, name(key)?);
                let bound =
                    channel.queue_bind(queue, exchange, key, options, FieldTable::default());
                link.ask("bound no queue", bound).await?;
            }
        }
        link.ask("closed no channel", channel.close(200, ShortString::default())).await
    }
}

impl Exchange {
    fn new(name: impl Into<String>, kind: ExchangeKind) -> Self {
        Self { name: name.into(), kind, alternate: None, bindings: Vec::new() }
    }

    /// Makes one that goes by patterns of the routing key, such as `order.*` or `order.#`.
    #[must_use]
    pub fn topic(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Topic)
    }

    /// Makes one that goes by the whole routing key.
    #[must_use]
    pub fn direct(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Direct)
    }

    /// Makes one that goes to all its queues.
    #[must_use]
    pub fn fanout(name: impl Into<String>) -> Self {
        Self::new(name, ExchangeKind::Fanout)
    }

    /// Sends what no queue takes to another exchange. It then counts as routed, and is not returned.
    #[must_use]
    pub fn alternate(mut self, exchange: impl Into<String>) -> Self {
        self.alternate = Some(exchange.into());
        self
    }

    /// Takes what another exchange has for a routing key.
    #[must_use]
    pub fn bind(mut self, source: impl Into<String>, routing_key: impl Into<String>) -> Self {
        self.bindings.push((source.into(), routing_key.into()));
        self
    }

    fn arguments(&self) -> FieldTable {
        let mut table = FieldTable::default();
        if let Some(alternate) = &self.alternate {
            table.insert("alternate-exchange".into(), words(alternate));
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

    /// Makes a quorum queue: replicated, on disk, counting deliveries, and dead-lettering at least once. Right unless there is
    /// a reason.
    #[must_use]
    pub fn quorum(name: impl Into<String>) -> Self {
        Self::new(name, true)
    }

    /// Makes a classic queue: on one server only, and dead-lettering at most once.
    #[must_use]
    pub fn classic(name: impl Into<String>) -> Self {
        Self::new(name, false)
    }

    /// Takes what an exchange has for a routing key, or a pattern of one.
    #[must_use]
    pub fn bind(mut self, exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        self.bindings.push((exchange.into(), routing_key.into()));
        self
    }

    /// Sends what is rejected, expires or is delivered too often to another queue.
    ///
    /// A quorum queue does so at least once: a message leaves it when the other queue has confirmed.
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

    /// Gives up what has waited for longer.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Deletes the queue when nobody has used it for so long.
    #[must_use]
    pub const fn expires(mut self, unused: Duration) -> Self {
        self.expires = Some(unused);
        self
    }

    /// Limits how many messages wait. At the limit the server refuses new ones, and their publishes fail as transient.
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

    /// At a limit gives the oldest messages up in place of refusing new ones.
    ///
    /// Such a queue may lose messages though their publishes were confirmed: without dead-lettering that is its purpose, and
    /// with it, what is given up goes to the other queue at most once, without a confirm.
    #[must_use]
    pub const fn drop_head(mut self) -> Self {
        self.drop_head = true;
        self
    }

    /// Gives up what came back so often without an answer. Counted by quorum queues only.
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
            faults.push(
                self.fault("the place for its dead letters must be named, in at most 255 bytes"),
            );
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
        table.insert("x-queue-type".into(), words(if self.quorum { "quorum" } else { "classic" }));
        if let Some((exchange, key)) = &self.dead_letter {
            table.insert("x-dead-letter-exchange".into(), words(exchange));
            if !key.is_empty() {
                table.insert("x-dead-letter-routing-key".into(), words(key));
            }
        }
        let limited = self.max_length.is_some() || self.max_bytes.is_some();
        let safe = self.quorum && self.dead_letter.is_some() && !self.drop_head;
        if safe {
            table.insert("x-dead-letter-strategy".into(), words("at-least-once"));
        }
        // At-least-once dead-lettering asks for it, limit or not.
        if safe || limited {
            table.insert(
                "x-overflow".into(),
                words(if self.drop_head { "drop-head" } else { "reject-publish" }),
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

fn words(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

/// Names were checked when the publisher or subscriber was built.
fn name(text: &str) -> Result<ShortString, Failure> {
    ShortString::try_new(text).map_err(|error| Failure::unavailable(error.to_string()))
}
