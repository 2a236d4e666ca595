//! Names of each test's own, messages to send, and a client of the test's own beside the transport.

use lapin::{Channel, Connection, ConnectionProperties};
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, Queue};
use outbox_core::{
    event::{Message, MessageId, MessageParts},
    transport::{Delivery, PublishError, Publisher, Subscriber},
};
use std::time::Duration;

pub(crate) use outbox_core::testing::transport::{full, numbered};

/// How long anything may take before it is called hung.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The URL of the shared server.
pub(crate) fn url() -> String {
    tests::servers::rabbitmq::shared_url()
}

/// A name that nobody else has.
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
    _connection: Connection,
}

/// Connects to a server without the transport.
pub(crate) async fn client(url: &str) -> Client {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("the server lets us in");
    let channel = connection.create_channel().await.expect("a channel");
    Client { channel, _connection: connection }
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
        let passive = lapin::options::QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = self.channel.queue_declare(queue.into(), passive, Default::default()).await;
        queue.expect("the queue is there").message_count()
    }
}

/// Publishes something that is not confirmed.
pub(crate) async fn failure(publisher: &AmqpPublisher) -> PublishError {
    let result = tokio::time::timeout(SOON, publisher.publish(&full())).await.expect("in time");
    result.expect_err("the message was not confirmed")
}

/// Waits for the next delivery.
pub(crate) async fn next(subscriber: &mut AmqpSubscriber) -> Delivery {
    let delivery = tokio::time::timeout(SOON, subscriber.next()).await.expect("in time");
    delivery.expect("the subscription holds").expect("the subscription is open")
}
