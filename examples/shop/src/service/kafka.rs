//! A Kafka broker, and the topics of this shop.

use super::{Location, wire::subscriptions};
use crate::{Release, story::Faults};
use outbox_kafka::{KafkaPublisher, KafkaSubscriber, Topic};
use outbox_sea_orm::transport::Publisher;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Partitions of each topic.
const PARTITIONS: u16 = 4;
/// The retention of the records of a temporary shop, in milliseconds.
const RETENTION_MS: &str = "3600000";

/// A Kafka broker, and the topics of this shop.
pub struct Kafka {
    url: String,
    prefix: String,
    /// Whether its records are useless after the run.
    is_temporary: bool,
    /// The faults to inject.
    faults: Faults,
    release: Release,
}

impl Kafka {
    /// Makes one for the shop with its databases at a location: shops at other locations have
    /// topics of their own.
    pub fn new(url: String, location: &Location, faults: Faults, release: Release) -> Self {
        Self {
            url,
            prefix: format!("shop.{}", location.name()),
            is_temporary: location.is_temporary(),
            faults,
            release,
        }
    }

    /// Makes a service's group member, which reads the topics that the service subscribes to.
    pub fn subscriber(&self, service: &str) -> anyhow::Result<KafkaSubscriber> {
        let member = KafkaSubscriber::new(&self.url, self.name(service))?.declare(self.topics());
        let topics = subscriptions(self.release)
            .into_iter()
            .filter(|(subscriber, _)| *subscriber == service)
            .flat_map(|(_, topics)| topics);
        Ok(topics.fold(member, |member, topic| member.topic(self.name(topic))).build()?)
    }

    /// Makes the sending half of a service.
    pub fn publisher(&self, timeout: Duration) -> anyhow::Result<Arc<dyn Publisher>> {
        let prefix = self.prefix.clone();
        let publisher = KafkaPublisher::new(&self.url)?.declare(self.topics()).timeout(timeout);
        let publisher =
            publisher.topic_of(move |message| format!("{prefix}.{}", message.topic)).build()?;
        Ok(Arc::new(self.faults.before(publisher, timeout)))
    }

    fn name(&self, short: &str) -> String {
        format!("{}.{short}", self.prefix)
    }

    fn topics(&self) -> Vec<Topic> {
        let names: BTreeSet<&str> = subscriptions(self.release)
            .into_iter()
            .flat_map(|(_, topics)| topics.iter().copied())
            .collect();
        let topic = |name: &str| Topic::new(self.name(name)).partitions(PARTITIONS);
        let kept = |topic: Topic| {
            if self.is_temporary { topic.set("retention.ms", RETENTION_MS) } else { topic }
        };
        names.into_iter().map(topic).map(kept).collect()
    }
}
