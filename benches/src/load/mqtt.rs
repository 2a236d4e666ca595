//! MQTT 5 at Mosquitto: a topic with a session that keeps its messages for each round.

use super::broker::{Broker, PREFETCH, Receiving, Sender, TIME_LIMIT, Taken, properties};
use anyhow::{Context, Result, anyhow, ensure};
use futures_util::FutureExt;
use outbox_core::{
    event::MessageId,
    transport::{Publisher, Subscriber},
};
use outbox_mqtt::{MqttPublisher, MqttSubscriber};
use rumqttc::{
    AckMode, AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions, QoS,
    mqttbytes::v5::{PubAckReason, Publish, PublishProperties},
};
use sea_orm::sqlx::{Row, postgres::PgRow};
use tests::servers::{Server, mosquitto};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

/// Requests that a client of the library may have queued.
const QUEUED: usize = 2_048;

pub(crate) struct Mqtt {
    server: Server,
    /// The topic, and the client id of the session that has subscribed to it.
    topic: String,
}

impl Mqtt {
    fn client(
        &self,
        id: &str,
        configure: impl FnOnce(&mut MqttOptions),
    ) -> (AsyncClient, EventLoop) {
        let at = rumqttc::Broker::tcp("127.0.0.1", self.server.port());
        let mut options = MqttOptions::new(id, at);
        configure(&mut options);
        AsyncClient::builder(options).capacity(QUEUED).build()
    }

    /// Takes up the session of the round.
    fn session(&self, acks: AckMode) -> (AsyncClient, EventLoop) {
        self.client(&self.topic, |options| {
            options.set_clean_start(false).set_session_expiry_interval(Some(u32::MAX));
            options.set_ack_mode(acks);
        })
    }
}

impl Broker for Mqtt {
    const NAME: &'static str = "MQTT (Mosquitto)";
    type Sender = MqttSender;

    async fn start() -> Result<Self> {
        Ok(Self { server: mosquitto::start().await, topic: String::new() })
    }

    async fn renew(&mut self) -> Result<()> {
        self.topic = format!("bench-{}", MessageId::generate());
        // The session is there before its messages.
        let mut session = MqttSubscriber::new(self.server.url(), &*self.topic)?.topic(&*self.topic);
        session.connect().await?;
        session.close().await;
        Ok(())
    }

    fn publisher(&self) -> Result<impl Publisher + 'static> {
        let topic = self.topic.clone();
        Ok(MqttPublisher::new(self.server.url())?.topic(move |_| topic.clone()).build()?)
    }

    fn subscriber(&self) -> Result<impl Subscriber + 'static> {
        Ok(MqttSubscriber::new(self.server.url(), &*self.topic)?.topic(&*self.topic).build()?)
    }

    async fn sender(&self) -> Result<MqttSender> {
        let (client, events) = self.client("hand", |options| _ = options.set_clean_start(true));
        Ok(MqttSender { client, events, topic: self.topic.clone() })
    }

    async fn receive(&self) -> Result<Receiving> {
        let (client, mut events) = self.session(AckMode::Manual);
        // The loop of the library has to run while messages wait for a task.
        let (taken, deliveries) = mpsc::channel(usize::from(u16::MAX).max(PREFETCH));
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok(event) = events.poll().await {
                let Event::Incoming(Packet::Publish(publish)) = event else { continue };
                let (id, payload) = (id(&publish), publish.payload.to_vec());
                let client = client.clone();
                let ack = async move { client.ack(&publish).await.map_err(|e| anyhow!("{e}")) };
                if taken.send(Taken { id, payload, ack: ack.boxed() }).await.is_err() {
                    break;
                }
            }
        });
        Ok(Receiving { deliveries, _task: task })
    }

    async fn holds(&self, messages: u32) -> Result<()> {
        let (_client, mut events) = self.session(AckMode::Automatic);
        let mut found = 0;
        let counting = async {
            while found < messages {
                if let Event::Incoming(Packet::Publish(_)) = events.poll().await? {
                    found += 1;
                }
            }
            Ok::<_, anyhow::Error>(())
        };
        timeout(TIME_LIMIT, counting).await.context("the session has too few messages")?
    }
}

fn id(publish: &Publish) -> String {
    let properties = publish.properties.iter().flat_map(|p| &p.user_properties);
    let id = properties.into_iter().find(|(name, _)| name == "id");
    id.map(|(_, id)| id.clone()).unwrap_or_default()
}

pub(crate) struct MqttSender {
    client: AsyncClient,
    events: EventLoop,
    topic: String,
}

impl Sender for MqttSender {
    async fn send(&mut self, rows: &[PgRow]) -> Result<()> {
        for row in rows {
            let [id, kind, key, (_, content_type)] = properties(row);
            let properties = PublishProperties {
                content_type: Some(content_type),
                user_properties: [id, kind, key].map(|(name, v)| (name.to_owned(), v)).to_vec(),
                ..PublishProperties::default()
            };
            let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
            let payload = row.get::<&[u8], _>(5).to_vec();
            self.client.publish(&self.topic, payload, options).await?;
        }
        let mut confirmed = 0;
        while confirmed < rows.len() {
            if let Event::Incoming(Packet::PubAck(answer)) = self.events.poll().await? {
                ensure!(answer.reason == PubAckReason::Success, "not confirmed: {answer:?}");
                confirmed += 1;
            }
        }
        Ok(())
    }
}
