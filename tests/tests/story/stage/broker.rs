//! A queue of the shared RabbitMQ, with what publishes to it and receives from it.

use super::SOON;
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, Queue, Topology};
use outbox_sea_orm::{
    event::{Message, MessageId},
    transport::{Subscriber, publish_all},
};
use std::time::Duration;
use tests::servers::rabbitmq;
use tokio::time::timeout;

/// How long an unused queue stays.
const KEPT: Duration = Duration::from_mins(5);
/// How long a queue is looked at that should be empty.
const QUIET: Duration = Duration::from_millis(300);

/// A quorum queue that nobody else has.
pub(crate) struct Broker {
    pub(crate) queue: String,
    topology: Topology,
}

impl Broker {
    /// Names one; it is there as soon as something is published or somebody subscribes.
    pub(crate) fn new() -> Self {
        let queue = format!("outbox-test.story.{}", MessageId::generate());
        let topology = Topology::new().queue(Queue::quorum(&queue).expires(KEPT));
        Self { queue, topology }
    }

    /// Names a classic one, which does not count deliveries.
    pub(crate) fn classic() -> Self {
        let queue = format!("outbox-test.story.{}", MessageId::generate());
        let topology = Topology::new().queue(Queue::classic(&queue).expires(KEPT));
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
        let verdicts = tests::in_time(SOON, "the broker answers for a batch", publish).await;
        assert!(verdicts.iter().all(Result::is_ok), "{verdicts:?}");
    }

    /// Fails where a message is left; for when no consumer is there any more.
    pub(crate) async fn is_empty(&self) {
        let mut subscriber = self.subscriber();
        let left = timeout(QUIET, subscriber.next()).await;
        assert!(left.is_err(), "nothing is left: {left:?}");
    }
}
