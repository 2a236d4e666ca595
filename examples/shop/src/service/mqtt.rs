//! An MQTT server, and the topics of this shop.

use super::{Location, wire::subscriptions};
use crate::{Release, story::Faults};
use outbox_mqtt::{MqttPublisher, MqttSubscriber};
use outbox_sea_orm::transport::Publisher;
use std::{sync::Arc, time::Duration};

/// How long the sessions of a temporary shop are kept.
const PASS_AFTER: Duration = Duration::from_hours(1);

/// An MQTT server, and the topics of this shop.
pub struct Mqtt {
    url: String,
    prefix: String,
    /// Whether its messages are useless after the run.
    is_temporary: bool,
    /// The faults to inject.
    faults: Faults,
    release: Release,
}

impl Mqtt {
    /// Makes one for the shop with its databases at a location: shops at other locations have
    /// topics of their own.
    pub fn new(url: String, location: &Location, faults: Faults, release: Release) -> Self {
        let (prefix, is_temporary) = (format!("shop-{}", location.name()), location.is_temporary());
        Self { url, prefix, is_temporary, faults, release }
    }

    /// Makes the subscriber of a service: the session that the server keeps under its name.
    pub fn subscriber(&self, service: &str) -> anyhow::Result<MqttSubscriber> {
        let subscriber = MqttSubscriber::new(&self.url, format!("{}-{service}", self.prefix))?;
        let subscriber =
            if self.is_temporary { subscriber.session_expiry(PASS_AFTER) } else { subscriber };
        let topics = subscriptions(self.release)
            .into_iter()
            .filter(|(whose, _)| *whose == service)
            .flat_map(|(_, topics)| topics);
        let topic = |topic: &str| format!("{}/{topic}", self.prefix);
        Ok(topics.fold(subscriber, |subscriber, name| subscriber.topic(topic(name))).build()?)
    }

    /// Makes the sending half of a service.
    pub fn publisher(&self, timeout: Duration) -> anyhow::Result<Arc<dyn Publisher>> {
        let prefix = self.prefix.clone();
        let publisher = MqttPublisher::new(&self.url)?.timeout(timeout);
        let publisher =
            publisher.topic(move |message| format!("{prefix}/{}", message.topic)).build()?;
        Ok(Arc::new(self.faults.before(publisher, timeout)))
    }
}
