//! Servers of each test's own, messages to send, and a client of the test's own beside the
//! transport.

use outbox_core::{
    event::{Message, MessageParts},
    failure::full_text,
    transport::{Delivery, PublishError, Publisher, Subscriber},
};
use outbox_sqs::{SnsPublisher, SnsTopic, SqsPublisher, SqsQueue, SqsSubscriber};
use std::time::Duration;
use tests::servers::{Server, aws};

pub(crate) use outbox_core::testing::transport::{full, numbered};

/// How long anything may take before it is called hung.
pub(crate) const SOON: Duration = Duration::from_mins(1);
/// How long a test waits for a delivery that must not come.
pub(crate) const QUIET: Duration = Duration::from_millis(1_500);
/// A queue of a test, which promises no order.
pub(crate) const STANDARD: &str = "orders";
/// A queue of a test that keeps the order of each key.
pub(crate) const FIFO: &str = "orders.fifo";
/// How long a message is invisible: short, so that a test need not wait for long, and longer than a
/// busy machine leaves an emulator without a turn.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(5);
/// How long an emulator may take for one reply: its first one took over ten seconds beside sixteen
/// busy processes.
const UNHURRIED: Duration = Duration::from_mins(1);

/// The emulator that a test uses where one is enough.
pub(crate) async fn start() -> Server {
    aws::start().await
}

/// A publisher to a queue, which it declares.
pub(crate) fn publisher_at(url: &str, queue: &str) -> SqsPublisher {
    let publisher = SqsPublisher::new(url).expect("a URL").timeout(UNHURRIED);
    publisher.queue(queue).declare([SqsQueue::new(queue)])
}

/// A subscriber of a queue, which it declares.
pub(crate) fn subscriber_at(url: &str, queue: &str) -> SqsSubscriber {
    SqsSubscriber::new(url, queue)
        .expect("a URL")
        .declare([SqsQueue::new(queue)])
        .visibility_timeout(VISIBILITY)
        .wait_time(Duration::from_secs(1))
        .timeout(UNHURRIED)
}

/// A publisher to the queue without an order.
pub(crate) fn publisher(server: &Server) -> SqsPublisher {
    publisher_at(&server.url(), STANDARD)
}

/// A subscriber of the queue without an order.
pub(crate) fn subscriber(server: &Server) -> SqsSubscriber {
    subscriber_at(&server.url(), STANDARD)
}

/// A publisher to a topic that delivers to a queue.
pub(crate) fn topic_publisher(server: &Server, topic: &str, queue: &str) -> SnsPublisher {
    SnsPublisher::new(server.url())
        .expect("a URL")
        .topic(topic)
        .timeout(UNHURRIED)
        .declare([SnsTopic::new(topic).deliver_to(queue)])
}

/// A message with every attribute set and something changed.
pub(crate) fn message_with(change: impl FnOnce(&mut MessageParts)) -> Message {
    let mut parts = full().into_parts();
    change(&mut parts);
    Message::new(parts)
}

/// A client of the test's own.
pub(crate) struct Client {
    pub(crate) sqs: aws_sdk_sqs::Client,
}

/// Connects to an emulator without the transport.
pub(crate) fn client(server: &Server) -> Client {
    let port = server.port();
    let keys = aws_sdk_sqs::config::Credentials::new("test", "test", None, None, "test");
    let config = aws_sdk_sqs::config::Builder::new()
        .behavior_version(aws_sdk_sqs::config::BehaviorVersion::latest())
        .region(aws_sdk_sqs::config::Region::new("us-east-1"))
        .credentials_provider(keys)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(format!("http://127.0.0.1:{port}"))
        .build();
    Client { sqs: aws_sdk_sqs::Client::from_conf(config) }
}

impl Client {
    /// Gives the URL of a queue.
    pub(crate) async fn url(&self, queue: &str) -> String {
        let found = self.sqs.get_queue_url().queue_name(queue).send().await;
        found.expect("the queue is there").queue_url.expect("it has a URL")
    }

    /// Tells how many messages wait and how many are invisible.
    pub(crate) async fn depth(&self, queue: &str) -> (i64, i64) {
        use aws_sdk_sqs::types::QueueAttributeName::{
            ApproximateNumberOfMessages as Waiting, ApproximateNumberOfMessagesNotVisible as Taken,
        };
        let url = self.url(queue).await;
        let request = self.sqs.get_queue_attributes().queue_url(url);
        let found = request.attribute_names(Waiting).attribute_names(Taken).send().await;
        let found = found.expect("described").attributes.expect("it has attributes");
        let number = |name| found.get(&name).and_then(|n| n.parse().ok()).unwrap_or(0);
        (number(Waiting), number(Taken))
    }

    /// Receives messages of a queue as they are, and leaves them visible.
    pub(crate) async fn peek(&self, queue: &str) -> Vec<aws_sdk_sqs::types::Message> {
        let request = self.sqs.receive_message().queue_url(self.url(queue).await);
        let request = request.max_number_of_messages(10).visibility_timeout(0);
        let reply = request.message_attribute_names("All").send().await;
        reply.expect("received").messages.unwrap_or_default()
    }

    /// Sends a body with attributes.
    pub(crate) async fn send(&self, queue: &str, body: &str, attributes: &[(&str, &str)]) {
        let mut request =
            self.sqs.send_message().queue_url(self.url(queue).await).message_body(body);
        for (name, value) in attributes {
            let value = aws_sdk_sqs::types::MessageAttributeValue::builder()
                .data_type("String")
                .string_value(*value)
                .build()
                .expect("a value");
            request = request.message_attributes(*name, value);
        }
        request.send().await.expect("sent");
    }

    /// Deletes a queue.
    pub(crate) async fn delete(&self, queue: &str) {
        let url = self.url(queue).await;
        self.sqs.delete_queue().queue_url(url).send().await.expect("deleted");
    }
}

/// Publishes something that is not confirmed.
pub(crate) async fn failure(publisher: &impl Publisher) -> PublishError {
    let result = tokio::time::timeout(SOON, publisher.publish(&full())).await;
    result.expect("an outcome in time").expect_err("the message was not confirmed")
}

/// Publishes messages with these numbers of a key.
pub(crate) async fn publish(
    publisher: &impl Publisher,
    key: &str,
    numbers: impl IntoIterator<Item = i64>,
) {
    for n in numbers {
        publisher.publish(&numbered(n, key)).await.expect("confirmed");
    }
}

/// Waits for the next delivery.
pub(crate) async fn next(subscriber: &mut SqsSubscriber) -> Delivery {
    let delivery = tokio::time::timeout(SOON, subscriber.next()).await;
    let delivery =
        delivery.unwrap_or_else(|_| panic!("nothing came within {SOON:?} to {subscriber:?}"));
    delivery.expect("the subscription holds").expect("the subscription is open")
}

/// Waits for the next delivery, through failures of the subscription.
pub(crate) async fn next_at_last(subscriber: &mut SqsSubscriber) -> Delivery {
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
pub(crate) async fn nothing_comes(subscriber: &mut SqsSubscriber) {
    let next = tokio::time::timeout(QUIET, subscriber.next()).await;
    assert!(next.is_err(), "nothing was to come, but: {next:?}");
}

/// Waits for the failure of a subscription.
pub(crate) async fn next_failure(subscriber: &mut SqsSubscriber) -> String {
    let next = tokio::time::timeout(SOON, subscriber.next()).await.expect("it fails");
    full_text(&next.expect_err("the subscription fails"))
}

/// The number of a message that [`numbered`] made.
pub(crate) fn number(delivery: &Delivery) -> i64 {
    delivery.message.as_ref().expect("readable").sequence.expect("numbered").0
}
