//! NATS JetStream: a stream and a durable consumer for each round.

use super::broker::{Broker, PREFETCH, Receiving, Sender, Taken, properties};
use anyhow::{Context as _, Result, anyhow, ensure};
use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        consumer::{AckPolicy, pull},
        stream,
    },
};
use futures_util::{FutureExt, StreamExt, future::join_all};
use outbox_core::{
    event::MessageId,
    transport::{Publisher, Subscriber},
};
use outbox_nats::{NatsPublisher, NatsSubscriber};
use sea_orm::sqlx::{Row, postgres::PgRow};
use tests::servers::{Server, nats};
use tokio::{sync::mpsc, task::JoinSet};

const CONSUMER: &str = "bench";

pub(crate) struct Nats {
    server: Server,
    context: jetstream::Context,
    /// The stream of the round, which has its name as its subject too.
    stream: String,
}

impl Broker for Nats {
    const NAME: &'static str = "NATS";
    type Sender = NatsSender;

    async fn start() -> Result<Self> {
        let server = nats::start().await;
        let context = jetstream::new(async_nats::connect(server.url()).await?);
        Ok(Self { server, context, stream: String::new() })
    }

    async fn renew(&mut self) -> Result<()> {
        if !self.stream.is_empty() {
            self.context.delete_stream(&self.stream).await?;
        }
        self.stream = format!("bench-{}", MessageId::generate());
        let config = stream::Config {
            name: self.stream.clone(),
            subjects: vec![self.stream.clone()],
            ..stream::Config::default()
        };
        let stream = self.context.create_stream(config).await?;
        let consumer = pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ..pull::Config::default()
        };
        stream.create_consumer(consumer).await?;
        Ok(())
    }

    fn publisher(&self) -> Result<impl Publisher + 'static> {
        let subject = self.stream.clone();
        Ok(NatsPublisher::new(self.server.url())?.subject(move |_| subject.clone()).build()?)
    }

    fn subscriber(&self) -> Result<impl Subscriber + 'static> {
        Ok(NatsSubscriber::new(self.server.url(), self.stream.as_str(), CONSUMER)?.build()?)
    }

    async fn sender(&self) -> Result<NatsSender> {
        let client = async_nats::connect(self.server.url()).await?;
        Ok(NatsSender { context: jetstream::new(client), subject: self.stream.clone() })
    }

    async fn receive(&self) -> Result<Receiving> {
        let context = jetstream::new(async_nats::connect(self.server.url()).await?);
        let stream = context.get_stream(&self.stream).await?;
        let consumer: pull::Stream = stream
            .get_consumer::<pull::Config>(CONSUMER)
            .await
            .map_err(|error| anyhow!("{error}"))?
            .stream()
            .max_messages_per_batch(PREFETCH)
            .messages()
            .await?;
        let (taken, deliveries) = mpsc::channel(PREFETCH);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut messages = consumer;
            while let Some(Ok(message)) = messages.next().await {
                let id = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id"));
                let id = id.map(ToString::to_string).unwrap_or_default();
                let payload = message.payload.to_vec();
                let ack = async move { message.ack().await.map_err(|error| anyhow!("{error}")) };
                if taken.send(Taken { id, payload, ack: ack.boxed() }).await.is_err() {
                    break;
                }
            }
        });
        Ok(Receiving { deliveries, _task: task })
    }

    async fn holds(&self, messages: u32) -> Result<()> {
        let mut stream = self.context.get_stream(&self.stream).await?;
        let found = stream.info().await.context("no stream")?.state.messages;
        ensure!(found == u64::from(messages), "void: the stream has {found} of {messages}");
        Ok(())
    }
}

pub(crate) struct NatsSender {
    context: jetstream::Context,
    subject: String,
}

impl Sender for NatsSender {
    async fn send(&mut self, rows: &[PgRow]) -> Result<()> {
        let send = async |row: &PgRow| -> Result<()> {
            let mut headers = HeaderMap::new();
            for (name, value) in properties(row) {
                headers.insert(if name == "id" { "Nats-Msg-Id" } else { name }, value.as_str());
            }
            let payload = row.get::<&[u8], _>(5).to_vec().into();
            let sent =
                self.context.publish_with_headers(self.subject.clone(), headers, payload).await?;
            sent.await?;
            Ok(())
        };
        join_all(rows.iter().map(send)).await.into_iter().collect()
    }
}
