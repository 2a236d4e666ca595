//! A Kafka and what this shop has there.

use super::{Place, wire::heard};
use crate::{Release, story::Faults};
use outbox_kafka::{KafkaPublisher, KafkaSubscriber, Topic};
use outbox_sea_orm::transport::Publisher;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Partitions of each topic.
const PARTITIONS: u16 = 4;
/// How long records of a shop stay that is gone with its databases, in milliseconds.
const PASSES_AFTER: &str = "3600000";

/// A Kafka and what this shop has there.
pub struct Kafka {
    url: String,
    prefix: String,
    /// Whether nobody needs its records when the shop is gone.
    passes: bool,
    /// What goes wrong on the way to it.
    faults: Faults,
    release: Release,
}

impl Kafka {
    /// Makes one for the shop with its databases at a place: shops at other places have topics of their own.
    pub fn new(url: String, place: &Place, faults: Faults, release: Release) -> Self {
        Self {
            url,
            prefix: format!("shop.{}", place.name()),
            passes: place.passes(),
            faults,
            release,
        }
    }

    /// Makes a service's member of its group, which reads the topics that it hears of.
    pub fn subscriber(&self, service: &str) -> anyhow::Result<KafkaSubscriber> {
        let member = KafkaSubscriber::new(&self.url, self.name(service))?.declare(self.topics());
        let heard = heard(self.release)
            .into_iter()
            .filter(|(whose, _)| *whose == service)
            .flat_map(|(_, topics)| topics);
        Ok(heard.fold(member, |member, topic| member.topic(self.name(topic))).build()?)
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
        let names: BTreeSet<&str> = heard(self.release)
            .into_iter()
            .flat_map(|(_, topics)| topics.iter().copied())
            .collect();
        let topic = |name: &str| Topic::new(self.name(name)).partitions(PARTITIONS);
        let kept = |topic: Topic| {
            if self.passes { topic.set("retention.ms", PASSES_AFTER) } else { topic }
        };
        names.into_iter().map(topic).map(kept).collect()
    }
}
