//! Servers of each test's own, messages to send, and a client of the test's own beside the
//! transport.

use outbox_core::{
    event::{Message, MessageParts},
    failure::full_text,
    transport::{Delivery, PublishError, Publisher, Subscriber},
};
use outbox_redis::{RedisPublisher, RedisSubscriber};
use redis::{AsyncConnectionConfig, FromRedisValue, RedisResult, aio::MultiplexedConnection};
use std::time::Duration;
use tests::servers::{Server, redis as server};

pub(crate) use outbox_core::testing::transport::{full, numbered};

/// How long anything may take before it is called hung.
pub(crate) const SOON: Duration = Duration::from_mins(1);
/// How long a test waits for a delivery that must not come.
pub(crate) const QUIET: Duration = Duration::from_millis(1_500);
/// The stream of a test.
pub(crate) const STREAM: &str = "orders";
/// The group of a test.
pub(crate) const GROUP: &str = "billing";

/// A server that has everything on disk before it replies.
pub(crate) async fn durable() -> Server {
    server::start_with(&["--appendfsync", "always"]).await
}

/// A publisher to the stream.
pub(crate) fn publisher(server: &Server) -> RedisPublisher {
    RedisPublisher::new(server.url()).expect("a URL").stream(STREAM)
}

/// A consumer of the group.
pub(crate) fn subscriber(server: &Server) -> RedisSubscriber {
    RedisSubscriber::new(server.url(), GROUP).expect("a URL").stream(STREAM)
}

/// A message with every attribute set and something changed.
pub(crate) fn message_with(change: impl FnOnce(&mut MessageParts)) -> Message {
    let mut parts = full().into_parts();
    change(&mut parts);
    Message::new(parts)
}

/// A client of the test's own.
pub(crate) struct Client(MultiplexedConnection);

/// Connects to a server without the transport.
pub(crate) async fn client(server: &Server) -> Client {
    client_at(&server.url()).await
}

/// Connects to a URL without the transport.
pub(crate) async fn client_at(url: &str) -> Client {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(SOON))
        .set_response_timeout(Some(SOON));
    let client = redis::Client::open(url).expect("a URL");
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    Client(connection.expect("the server is there"))
}

impl Client {
    /// Sends a command, such as `XLEN orders`.
    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        let parts: Vec<&str> = command.split_whitespace().collect();
        self.send(&parts).await
    }

    /// Sends a command whose parts have spaces.
    pub(crate) async fn send<T: FromRedisValue>(&self, parts: &[&str]) -> T {
        self.attempt(parts).await.unwrap_or_else(|error| panic!("{parts:?}: {error}"))
    }

    /// Sends a command that may fail.
    pub(crate) async fn attempt<T: FromRedisValue>(&self, parts: &[&str]) -> RedisResult<T> {
        let mut command = redis::cmd(parts[0]);
        parts[1..].iter().for_each(|part| _ = command.arg(part));
        command.query_async(&mut self.0.clone()).await
    }

    /// Tells how many entries of the group are pending.
    pub(crate) async fn pending(&self) -> usize {
        let pending: Vec<redis::Value> =
            self.ask(&format!("XPENDING {STREAM} {GROUP} - + 1000")).await;
        pending.len()
    }
}

/// Publishes something that is not confirmed.
pub(crate) async fn failure(publisher: &RedisPublisher) -> PublishError {
    let result = tokio::time::timeout(SOON, publisher.publish(&full())).await;
    let result = result
        .unwrap_or_else(|_| panic!("no outcome on a publish within {SOON:?} by {publisher:?}"));
    result.expect_err("the message was not confirmed")
}

/// Publishes messages with these numbers of a key.
pub(crate) async fn publish(
    publisher: &RedisPublisher,
    key: &str,
    numbers: impl IntoIterator<Item = i64>,
) {
    for n in numbers {
        publisher.publish(&numbered(n, key)).await.expect("confirmed");
    }
}

/// Waits for the next delivery.
pub(crate) async fn next(subscriber: &mut RedisSubscriber) -> Delivery {
    let delivery = tokio::time::timeout(SOON, subscriber.next()).await;
    let delivery =
        delivery.unwrap_or_else(|_| panic!("nothing came within {SOON:?} to {subscriber:?}"));
    delivery.expect("the subscription holds").expect("the subscription is open")
}

/// Waits for the next delivery, through failures of the subscription.
pub(crate) async fn next_at_last(subscriber: &mut RedisSubscriber) -> Delivery {
    let next = async {
        loop {
            if let Ok(delivery) = subscriber.next().await {
                return delivery.expect("the subscription is open");
            }
        }
    };
    tokio::time::timeout(SOON, next).await.expect("it comes")
}

/// Fails where something comes.
pub(crate) async fn nothing_comes(subscriber: &mut RedisSubscriber) {
    let next = tokio::time::timeout(QUIET, subscriber.next()).await;
    assert!(next.is_err(), "nothing was to come, but: {next:?}");
}

/// Waits for the failure of a subscription.
pub(crate) async fn next_failure(subscriber: &mut RedisSubscriber) -> String {
    let next = tokio::time::timeout(SOON, subscriber.next()).await.expect("it fails");
    full_text(&next.expect_err("the subscription fails"))
}

/// The number of a message that [`numbered`] made.
pub(crate) fn number(delivery: &Delivery) -> i64 {
    delivery.message.as_ref().expect("readable").sequence.expect("numbered").0
}
