//! A Redis or Valkey, and the streams of this shop.

use super::{Location, wire::subscriptions};
use crate::{Release, story::Faults};
use outbox_redis::{RedisPublisher, RedisSubscriber};
use outbox_sea_orm::transport::Publisher;
use std::{sync::Arc, time::Duration};

/// A Redis or Valkey, and the streams of this shop.
pub struct Redis {
    url: String,
    prefix: String,
    /// The faults to inject.
    faults: Faults,
    release: Release,
}

impl Redis {
    /// Makes one for the shop with its databases at a location: shops at other locations have
    /// streams of their own.
    pub fn new(url: String, location: &Location, faults: Faults, release: Release) -> Self {
        Self { url, prefix: format!("shop:{}:", location.name()), faults, release }
    }

    /// Makes a service's consumer, which reads the streams of the topics that the service
    /// subscribes to. A topic has one reader, so that what is acknowledged can be deleted.
    pub fn subscriber(&self, service: &str) -> anyhow::Result<RedisSubscriber> {
        let consumer = RedisSubscriber::new(&self.url, service)?
            .dead_letters(format!("{}dead", self.prefix))
            .delete_acknowledged();
        let topics = subscriptions(self.release)
            .into_iter()
            .filter(|(whose, _)| *whose == service)
            .flat_map(|(_, topics)| topics);
        let stream = |topic: &str| format!("{}{topic}", self.prefix);
        Ok(topics.fold(consumer, |consumer, topic| consumer.stream(stream(topic))).build()?)
    }

    /// Makes the sending half of a service.
    pub fn publisher(&self, timeout: Duration) -> anyhow::Result<Arc<dyn Publisher>> {
        let publisher = RedisPublisher::new(&self.url)?.prefix(&self.prefix).timeout(timeout);
        Ok(Arc::new(self.faults.before(publisher.build()?, timeout)))
    }
}
