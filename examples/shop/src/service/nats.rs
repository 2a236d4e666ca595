//! A NATS server with JetStream, and the streams of this shop.

use super::{Location, wire::subscriptions};
use crate::{Release, story::Faults};
use outbox_nats::{DurableConsumer, NatsPublisher, NatsSubscriber, Stream};
use outbox_sea_orm::transport::Publisher;
use std::{sync::Arc, time::Duration};

/// How long the messages of a temporary shop are kept.
const PASS_AFTER: Duration = Duration::from_hours(1);

/// A NATS server with JetStream, and the streams of this shop.
pub struct Nats {
    url: String,
    prefix: String,
    /// Whether its messages are useless after the run.
    is_temporary: bool,
    /// The faults to inject.
    faults: Faults,
}

impl Nats {
    /// Makes one for the shop with its databases at a location: shops at other locations have
    /// streams of their own.
    pub fn new(url: String, location: &Location, faults: Faults) -> Self {
        let (prefix, is_temporary) = (format!("shop-{}", location.name()), location.is_temporary());
        Self { url, prefix, is_temporary, faults }
    }

    /// Makes the subscriber of a service: the durable consumer of its stream.
    pub fn subscriber(&self, service: &str) -> anyhow::Result<NatsSubscriber> {
        let subscriber = NatsSubscriber::new(&self.url, self.name(service), service)?;
        let subscriber = subscriber.declare(self.streams());
        Ok(subscriber.declare_consumer(DurableConsumer::new()).build()?)
    }

    /// Makes the sending half of a service.
    pub fn publisher(&self, timeout: Duration) -> anyhow::Result<Arc<dyn Publisher>> {
        let prefix = self.prefix.clone();
        let publisher = NatsPublisher::new(&self.url)?.declare(self.streams()).timeout(timeout);
        let publisher =
            publisher.subject(move |message| format!("{prefix}.{}", message.topic)).build()?;
        Ok(Arc::new(self.faults.before(publisher, timeout)))
    }

    fn name(&self, service: &str) -> String {
        format!("{}-{service}", self.prefix)
    }

    /// Gives a stream for each service, of the topics that it subscribes to. The topics are those
    /// of the next release too, so that both releases declare the same streams.
    fn streams(&self) -> Vec<Stream> {
        let stream = |(service, topics): (&str, &[&str])| {
            let stream = Stream::new(self.name(service));
            let stream = topics
                .iter()
                .fold(stream, |stream, topic| stream.subject(format!("{}.{topic}", self.prefix)));
            if self.is_temporary { stream.max_age(PASS_AFTER) } else { stream }
        };
        subscriptions(Release::Next).into_iter().map(stream).collect()
    }
}
