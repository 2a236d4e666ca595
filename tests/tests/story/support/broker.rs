//! A queue of the shared RabbitMQ, with its publishers and subscribers.

use super::SOON;
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, Queue, Topology};
use outbox_sea_orm::{
    event::{Message, MessageId},
    transport::{Subscriber, publish_all},
};
use std::time::Duration;
use tests::servers::rabbitmq;
use tokio::time::timeout;

/// How long the broker keeps an unused queue.
const UNUSED_EXPIRY: Duration = Duration::from_mins(5);
/// How long a test waits for messages of a queue that should be empty.
const QUIET: Duration = Duration::from_millis(300);

/// A queue of this test alone.
pub(crate) struct Broker {
    pub(crate) queue: String,
    topology: Topology,
}

impl Broker {
    /// Names a quorum queue; the first publisher or subscriber declares it.
    pub(crate) fn new() -> Self {
        let queue = format!("outbox-test.story.{}", MessageId::generate());
        let topology = Topology::new().queue(Queue::quorum(&queue).expires(UNUSED_EXPIRY));
        Self { queue, topology }
    }

    /// Names a classic one, which does not count deliveries.
    pub(crate) fn classic() -> Self {
        let queue = format!("outbox-test.story.{}", MessageId::generate());
        let topology = Topology::new().queue(Queue::classic(&queue).expires(UNUSED_EXPIRY));
        Self { queue, topology }
    }

    pub(crate) fn publisher(&self) -> AmqpPublisher {
        let publisher = AmqpPublisher::new(rabbitmq::shared_url()).unwrap();
        publisher.queue(&self.queue).declare(self.topology.clone())
    }

    pub(crate) fn subscriber(&self) -> AmqpSubscriber {
        AmqpSubscriber::new(rabbitmq::shared_url(), &self.queue)
            .unwrap()
            .declare(self.topology.clone())
    }

    /// Publishes all at once, confirmed.
    pub(crate) async fn publish(&self, messages: &[Message]) {
        let publisher = self.publisher();
        let publish = publish_all(&publisher, messages);
        let outcomes = tests::in_time(SOON, "the broker answers for a batch", publish).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    }

    /// Fails where a message is left; for tests whose consumers have ended.
    pub(crate) async fn is_empty(&self) {
        let mut subscriber = self.subscriber();
        let left = timeout(QUIET, subscriber.next()).await;
        assert!(left.is_err(), "nothing is left: {left:?}");
    }
}
