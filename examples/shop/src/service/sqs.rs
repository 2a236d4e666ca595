//! Amazon SQS, or what stands for it, and the queues of this shop.

use super::{Location, wire::subscriptions};
use crate::{Release, story::Faults};
use outbox_sea_orm::transport::Publisher;
use outbox_sqs::{SqsPublisher, SqsQueue, SqsSubscriber};
use std::{sync::Arc, time::Duration};

/// How long a message of a service that has died is kept from the next one.
const VISIBILITY: Duration = Duration::from_secs(10);

/// Amazon SQS, or what stands for it, and the queues of this shop.
pub struct Sqs {
    url: String,
    prefix: String,
    /// The faults to inject.
    faults: Faults,
}

impl Sqs {
    /// Makes one for the shop with its databases at a location: shops at other locations have queues
    /// of their own.
    pub fn new(url: String, location: &Location, faults: Faults) -> Self {
        Self { url, prefix: format!("shop-{}", location.name()), faults }
    }

    /// Makes the subscriber of a service's queue.
    pub fn subscriber(&self, service: &str) -> anyhow::Result<SqsSubscriber> {
        let queue = queue_of(&self.prefix, service);
        let subscriber = SqsSubscriber::new(&self.url, &queue)?.declare([SqsQueue::new(queue)]);
        Ok(subscriber.visibility_timeout(VISIBILITY).build()?)
    }

    /// Makes the sending half of a service: each event goes to the queue of the service that
    /// subscribes to its topic. The topics are those of the next release too.
    pub fn publisher(&self, timeout: Duration) -> anyhow::Result<Arc<dyn Publisher>> {
        let all = subscriptions(Release::Next);
        let queues = all.map(|(service, _)| SqsQueue::new(queue_of(&self.prefix, service)));
        let prefix = self.prefix.clone();
        let publisher = SqsPublisher::new(&self.url)?.declare(queues).timeout(timeout);
        let publisher = publisher.queue_of(move |message| {
            let takes = |(_, topics): &&(&str, &[&str])| topics.contains(&message.topic.as_str());
            let service = all.iter().find(takes).map_or("nobody", |(service, _)| service);
            queue_of(&prefix, service)
        });
        Ok(Arc::new(self.faults.before(publisher.build()?, timeout)))
    }
}

/// Names the FIFO queue of a service: the events of an order keep their order.
fn queue_of(prefix: &str, service: &str) -> String {
    format!("{prefix}-{service}.fifo")
}
