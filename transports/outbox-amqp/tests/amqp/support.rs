//! Names of each test's own, messages to send, and a client of the test's own beside the transport.

use lapin::{Channel, Connection, ConnectionProperties, options::QueueDeclareOptions};
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, Queue};
use outbox_core::{
    event::{Message, MessageId, MessageParts},
    transport::{Delivery, PublishError, Publisher, Subscriber},
};
use std::time::Duration;

pub(crate) use outbox_core::testing::transport::{full, numbered};

/// How long anything may take before it is called hung.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// The URL of the shared server.
pub(crate) fn url() -> String {
    tests::servers::rabbitmq::shared_url()
}

/// A unique name.
pub(crate) fn name(what: &str) -> String {
    format!("outbox-test.{what}.{}", MessageId::generate())
}

/// A quorum queue that goes away by itself when its test has ended.
pub(crate) fn queue(name: &str) -> Queue {
    Queue::quorum(name).expires(Duration::from_mins(2))
}

/// A publisher on the shared server.
pub(crate) fn publisher() -> AmqpPublisher {
    AmqpPublisher::new(url()).expect("a URL")
}

/// A subscriber on the shared server.
pub(crate) fn subscriber(queue: &str) -> AmqpSubscriber {
    AmqpSubscriber::new(url(), queue).expect("a URL")
}

/// A message with every attribute set and something changed.
pub(crate) fn message_with(change: impl FnOnce(&mut MessageParts)) -> Message {
    let mut parts = full().into_parts();
    change(&mut parts);
    Message::new(parts)
}

/// A channel of the test's own, with the connection that it lives on.
pub(crate) struct Client {
    pub(crate) channel: Channel,
    connection: Connection,
}

/// Connects to a server without the transport.
pub(crate) async fn client(url: &str) -> Client {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("the server accepts the connection");
    let channel = connection.create_channel().await.expect("a channel");
    Client { channel, connection }
}

impl Client {
    /// Deletes a queue.
    pub(crate) async fn delete_queue(&self, name: &str) {
        self.channel.queue_delete(name.into(), Default::default()).await.expect("deleted");
    }

    /// Deletes an exchange.
    pub(crate) async fn delete_exchange(&self, name: &str) {
        self.channel.exchange_delete(name.into(), Default::default()).await.expect("deleted");
    }

    /// Tells how many messages wait in a queue.
    pub(crate) async fn waiting(&self, queue: &str) -> u32 {
        let queue = self.channel.queue_declare(queue.into(), PASSIVE, Default::default()).await;
        queue.expect("the queue is there").message_count()
    }

    /// Tells how many consumers a queue has; zero where there is no queue.
    async fn consumers(&self, queue: &str) -> u32 {
        // The server closes the channel over a queue that is not there.
        let channel = self.connection.create_channel().await.expect("a channel");
        let queue = channel.queue_declare(queue.into(), PASSIVE, Default::default()).await;
        queue.map_or(0, |queue| queue.consumer_count())
    }
}

/// Asks for a queue and does not make one.
const PASSIVE: QueueDeclareOptions = QueueDeclareOptions {
    passive: true,
    durable: false,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};

/// Waits until a subscription that gives nothing is open, as one of so many consumers of its queue.
pub(crate) async fn subscribed(subscriber: &mut AmqpSubscriber, queue: &str, consumers: u32) {
    let client = client(&url()).await;
    let there = async || tests::equals(client.consumers(queue).await, consumers);
    tokio::select! {
        came = subscriber.next() => panic!("nothing was to come to {queue}, but: {came:?}"),
        () = tests::wait_until(SOON, "the subscription holds", there) => {}
    }
}

/// Publishes something that is not confirmed.
pub(crate) async fn failure(publisher: &AmqpPublisher) -> PublishError {
    let result = tokio::time::timeout(SOON, publisher.publish(&full())).await;
    let result = result
        .unwrap_or_else(|_| panic!("no outcome on a publish within {SOON:?} by {publisher:?}"));
    result.expect_err("the message was not confirmed")
}

/// Waits for the next delivery.
pub(crate) async fn next(subscriber: &mut AmqpSubscriber) -> Delivery {
    let delivery = tokio::time::timeout(SOON, subscriber.next()).await;
    let delivery =
        delivery.unwrap_or_else(|_| panic!("nothing came within {SOON:?} to {subscriber:?}"));
    delivery.expect("the subscription holds").expect("the subscription is open")
}
