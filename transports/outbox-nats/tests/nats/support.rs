//! A private server with JetStream, messages to send, and a client of the test's own beside the
//! transport.

use async_nats::jetstream;
use outbox_core::{
    event::{Message, MessageParts},
    transport::{Delivery, PublishError, Publisher, Subscriber},
};
use outbox_nats::{DurableConsumer, NatsPublisher, NatsSubscriber, Stream};
use std::{fs, os::unix::fs::PermissionsExt, time::Duration};
use tempfile::TempDir;
use tests::servers::{Server, nats};

pub(crate) use outbox_core::testing::transport::{full, numbered};

/// How long anything may take before it is called hung.
pub(crate) const SOON: Duration = Duration::from_mins(1);
/// How long a test waits for what should not come.
pub(crate) const QUIET: Duration = Duration::from_millis(300);
/// The stream of most tests.
pub(crate) const STREAM: &str = "ORDERS";
/// The durable consumer of most tests.
pub(crate) const CONSUMER: &str = "billing";

/// The stream of most tests, with the topic of the messages as its subject.
pub(crate) fn stream() -> Stream {
    Stream::new(STREAM).subject("orders").subject("orders.>")
}

/// A publisher on a server that declares the stream.
pub(crate) fn publisher(server: &Server) -> NatsPublisher {
    NatsPublisher::new(server.url()).expect("a URL").declare([stream()])
}

/// A subscriber on a server that declares stream and consumer.
pub(crate) fn subscriber(server: &Server) -> NatsSubscriber {
    let consumer = DurableConsumer::new().ack_wait(Duration::from_secs(2));
    NatsSubscriber::new(server.url(), STREAM, CONSUMER)
        .expect("a URL")
        .declare([stream()])
        .declare_consumer(consumer)
}

/// A message with every attribute set and something changed.
pub(crate) fn message_with(change: impl FnOnce(&mut MessageParts)) -> Message {
    let mut parts = full().into_parts();
    change(&mut parts);
    Message::new(parts)
}

/// Connects to a server without the transport.
pub(crate) async fn client(server: &Server) -> jetstream::Context {
    let client = async_nats::connect(server.url()).await.expect("the server accepts it");
    jetstream::new(client)
}

/// Starts a server with a configuration of its own, in a folder that lives as long as it.
pub(crate) async fn configured(text: &str) -> (Server, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let visible = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(folder.path(), visible(0o755)).expect("its owner may open it");
    let file = folder.path().join("nats.conf");
    fs::write(&file, text).expect("it can be written");
    let server = nats::start_with(&["--config", &file.to_string_lossy()]).await;
    (server, folder)
}

/// Publishes something that is not confirmed.
pub(crate) async fn failure(publisher: &NatsPublisher) -> PublishError {
    let result = tokio::time::timeout(SOON, publisher.publish(&full())).await;
    let result = result
        .unwrap_or_else(|_| panic!("no outcome on a publish within {SOON:?} by {publisher:?}"));
    result.expect_err("the message was not confirmed")
}

/// Waits for the next delivery.
pub(crate) async fn next(subscriber: &mut NatsSubscriber) -> Delivery {
    let delivery = tokio::time::timeout(SOON, subscriber.next()).await;
    let delivery =
        delivery.unwrap_or_else(|_| panic!("nothing came within {SOON:?} to {subscriber:?}"));
    delivery.expect("the subscription holds").expect("the subscription is open")
}

/// Waits for the failure of a subscription.
pub(crate) async fn lost(subscriber: &mut NatsSubscriber) -> String {
    let failure = tokio::time::timeout(SOON, subscriber.next()).await;
    let failure = failure.unwrap_or_else(|_| panic!("{subscriber:?} did not fail in {SOON:?}"));
    outbox_core::failure::full_text(&failure.expect_err("the subscription has failed"))
}

/// Gives the place of a delivery's message in its key, and how often it came.
pub(crate) fn place(delivery: &Delivery) -> (i64, Option<u32>) {
    let message = delivery.message.as_ref().expect("it can be read");
    (message.sequence.map_or(0, |sequence| sequence.0), delivery.attempt)
}
