//! How the services reach each other: by signed HTTP, or through a broker. The services do not
//! depend on it.

use super::Link;
use anyhow::Context;
use axum::Router;
use outbox_http::{HttpPublisher, HttpReceiver};
use outbox_sea_orm::transport::{Publisher, Subscriber};
use std::sync::Arc;

#[cfg(feature = "kafka")]
use super::Kafka;
#[cfg(feature = "amqp")]
use super::Location;
#[cfg(feature = "mqtt")]
use super::Mqtt;
#[cfg(feature = "nats")]
use super::Nats;
#[cfg(feature = "redis")]
use super::Redis;
#[cfg(feature = "sqs")]
use super::Sqs;
#[cfg(any(
    feature = "amqp",
    feature = "kafka",
    feature = "mqtt",
    feature = "nats",
    feature = "redis",
    feature = "sqs"
))]
use crate::{Release, events::REPLIES, next::GIFTS};
#[cfg(feature = "amqp")]
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, Exchange, Queue, Topology};

/// The topics that each service subscribes to at a broker.
#[cfg(any(
    feature = "amqp",
    feature = "kafka",
    feature = "mqtt",
    feature = "nats",
    feature = "redis",
    feature = "sqs"
))]
pub(super) fn subscriptions(release: Release) -> [(&'static str, &'static [&'static str]); 4] {
    let by_shipping: &[_] = match release {
        Release::This => &["shipping", "orders"],
        Release::Next => &["shipping", "orders", GIFTS],
    };
    [
        ("orders", &[REPLIES, "parcels"]),
        ("payments", &["payments"]),
        ("stock", &["stock"]),
        ("shipping", by_shipping),
    ]
}

/// The transport of the events.
pub enum Wire {
    /// From one service to the other, signed with a secret that both have.
    Http { secret: String },
    /// Through an exchange of RabbitMQ to a queue of each service.
    #[cfg(feature = "amqp")]
    Rabbit(Rabbit),
    /// Through a topic of Kafka for each topic, with a consumer group of each service.
    #[cfg(feature = "kafka")]
    Kafka(Kafka),
    /// Through a topic of MQTT for each topic, with a session of each service.
    #[cfg(feature = "mqtt")]
    Mqtt(Mqtt),
    /// Through a stream of NATS for each service, with a durable consumer.
    #[cfg(feature = "nats")]
    Nats(Nats),
    /// Through a stream of Redis for each topic, with a consumer group of each service.
    #[cfg(feature = "redis")]
    Redis(Redis),
    /// Through a FIFO queue of SQS for each service.
    #[cfg(feature = "sqs")]
    Sqs(Sqs),
}

/// The receiving half of a service: routes to add to its server, and a subscriber.
pub type Receiver = (Router, Box<dyn Subscriber>);

impl Wire {
    /// Makes the receiving half of a service.
    pub fn receive(&self, service: &str) -> anyhow::Result<Receiver> {
        Ok(match self {
            Self::Http { secret } => {
                let (router, subscriber) = HttpReceiver::builder()
                    .verify(secret)
                    .build()
                    .context(format!("{service} cannot receive"))?;
                (router, Box::new(subscriber))
            }
            #[cfg(feature = "amqp")]
            Self::Rabbit(rabbit) => {
                let subscriber = AmqpSubscriber::new(&rabbit.url, rabbit.name(service))?;
                (Router::new(), Box::new(subscriber.declare(rabbit.topology()).build()?))
            }
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => (Router::new(), Box::new(kafka.subscriber(service)?)),
            #[cfg(feature = "mqtt")]
            Self::Mqtt(mqtt) => (Router::new(), Box::new(mqtt.subscriber(service)?)),
            #[cfg(feature = "nats")]
            Self::Nats(nats) => (Router::new(), Box::new(nats.subscriber(service)?)),
            #[cfg(feature = "redis")]
            Self::Redis(redis) => (Router::new(), Box::new(redis.subscriber(service)?)),
            #[cfg(feature = "sqs")]
            Self::Sqs(sqs) => (Router::new(), Box::new(sqs.subscriber(service)?)),
        })
    }

    /// Makes the sending half towards a service at an address.
    pub fn publisher(&self, address: &str, link: &Link) -> anyhow::Result<Arc<dyn Publisher>> {
        Ok(match self {
            Self::Http { secret } => {
                let publisher = HttpPublisher::new(format!("{address}/events"))?;
                Arc::new(publisher.signed(secret).allow_loopback().timeout(link.timeout).build()?)
            }
            #[cfg(feature = "amqp")]
            Self::Rabbit(rabbit) => {
                let publisher = AmqpPublisher::new(&rabbit.url)?.exchange(rabbit.name("exchange"));
                let publisher = publisher.routing_key(|message| message.topic.clone());
                Arc::new(publisher.declare(rabbit.topology()).timeout(link.timeout).build()?)
            }
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.publisher(link.timeout)?,
            #[cfg(feature = "mqtt")]
            Self::Mqtt(mqtt) => mqtt.publisher(link.timeout)?,
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.publisher(link.timeout)?,
            #[cfg(feature = "redis")]
            Self::Redis(redis) => redis.publisher(link.timeout)?,
            #[cfg(feature = "sqs")]
            Self::Sqs(sqs) => sqs.publisher(link.timeout)?,
        })
    }

    /// Describes the transport of an event.
    pub const fn how(&self) -> &'static str {
        match self {
            Self::Http { .. } => "as a signed POST",
            #[cfg(feature = "amqp")]
            Self::Rabbit(_) => "through RabbitMQ",
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => "through Kafka",
            #[cfg(feature = "mqtt")]
            Self::Mqtt(_) => "through MQTT",
            #[cfg(feature = "nats")]
            Self::Nats(_) => "through NATS",
            #[cfg(feature = "redis")]
            Self::Redis(_) => "through Redis",
            #[cfg(feature = "sqs")]
            Self::Sqs(_) => "through SQS",
        }
    }

    /// Names the sender of a confirmation.
    pub const fn confirms(&self) -> &'static str {
        match self {
            Self::Http { .. } => "the other service",
            #[cfg(feature = "amqp")]
            Self::Rabbit(_) => "RabbitMQ",
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => "Kafka",
            #[cfg(feature = "mqtt")]
            Self::Mqtt(_) => "the MQTT server",
            #[cfg(feature = "nats")]
            Self::Nats(_) => "NATS",
            #[cfg(feature = "redis")]
            Self::Redis(_) => "Redis",
            #[cfg(feature = "sqs")]
            Self::Sqs(_) => "SQS",
        }
    }

    /// Names the service or broker that the faults hit.
    pub const fn fails(&self) -> &'static str {
        match self {
            Self::Http { .. } => "payments",
            #[cfg(feature = "amqp")]
            Self::Rabbit(_) => "RabbitMQ",
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => "Kafka",
            #[cfg(feature = "mqtt")]
            Self::Mqtt(_) => "the MQTT server",
            #[cfg(feature = "nats")]
            Self::Nats(_) => "NATS",
            #[cfg(feature = "redis")]
            Self::Redis(_) => "Redis",
            #[cfg(feature = "sqs")]
            Self::Sqs(_) => "SQS",
        }
    }
}

/// A RabbitMQ, and the exchange and queues of this shop.
#[cfg(feature = "amqp")]
pub struct Rabbit {
    url: String,
    prefix: String,
    /// Whether its queues are deleted after the run.
    is_temporary: bool,
    release: Release,
}

#[cfg(feature = "amqp")]
impl Rabbit {
    /// How long unused queues stay.
    const STAYS: std::time::Duration = std::time::Duration::from_mins(2);

    /// Makes one for the shop with its databases at a location: shops at other locations have
    /// queues of their own.
    pub fn new(url: String, location: &Location, release: Release) -> Self {
        Self {
            url,
            prefix: format!("shop.{}", location.name()),
            is_temporary: location.is_temporary(),
            release,
        }
    }

    fn name(&self, short: &str) -> String {
        format!("{}.{short}", self.prefix)
    }

    /// Gives the topology: each service has a queue of the topics that it subscribes to.
    fn topology(&self) -> Topology {
        let (exchange, dead) = (self.name("exchange"), self.name("dead"));
        let queues = subscriptions(self.release).map(|(service, topics)| {
            let queue = Queue::quorum(self.name(service)).dead_letter_to(&dead);
            topics.iter().fold(queue, |queue, topic| queue.bind(&exchange, *topic))
        });
        let topology = Topology::new().exchange(Exchange::topic(&exchange));
        queues.into_iter().chain([Queue::quorum(&dead)]).fold(topology, |topology, queue| {
            topology.queue(if self.is_temporary { queue.expires(Self::STAYS) } else { queue })
        })
    }
}
