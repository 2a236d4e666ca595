//! Redis Streams: a stream with a group for each round.

use super::broker::{Broker, PREFETCH, Receiving, Sender, Taken, properties};
use anyhow::{Context, Result, ensure};
use futures_util::{FutureExt, future::join_all};
use outbox_core::{
    event::MessageId,
    transport::{Publisher, Subscriber},
};
use outbox_redis::{RedisPublisher, RedisSubscriber};
use redis::{AsyncConnectionConfig, aio::MultiplexedConnection, cmd};
use sea_orm::sqlx::{Row, postgres::PgRow};
use std::collections::HashMap;
use tests::servers::{Server, redis as server};
use tokio::{sync::mpsc, task::JoinSet};

const GROUP: &str = "bench";

pub(crate) struct Redis {
    server: Server,
    stream: String,
}

impl Redis {
    async fn connect(&self) -> Result<MultiplexedConnection> {
        let client = redis::Client::open(self.server.url())?;
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
    }
}

/// The entries of a read, by stream: each with its fields.
type Entries = Option<Vec<(String, Vec<(String, HashMap<String, Vec<u8>>)>)>>;

impl Broker for Redis {
    const NAME: &'static str = "Redis";
    type Sender = RedisSender;

    async fn start() -> Result<Self> {
        Ok(Self { server: server::start().await, stream: String::new() })
    }

    async fn renew(&mut self) -> Result<()> {
        let mut connection = self.connect().await?;
        let next = format!("bench.{}", MessageId::generate());
        let former = std::mem::replace(&mut self.stream, next);
        cmd("DEL").arg(former).query_async::<()>(&mut connection).await?;
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(&self.stream).arg(GROUP).arg("0").arg("MKSTREAM");
        Ok(create.query_async::<()>(&mut connection).await?)
    }

    fn publisher(&self) -> Result<impl Publisher + 'static> {
        Ok(RedisPublisher::new(self.server.url())?.stream(&self.stream).build()?)
    }

    fn subscriber(&self) -> Result<impl Subscriber + 'static> {
        Ok(RedisSubscriber::new(self.server.url(), GROUP)?.stream(&self.stream).build()?)
    }

    async fn sender(&self) -> Result<RedisSender> {
        Ok(RedisSender { connection: self.connect().await?, stream: self.stream.clone() })
    }

    async fn receive(&self) -> Result<Receiving> {
        let (mut reader, acks) = (self.connect().await?, self.connect().await?);
        let stream = self.stream.clone();
        let (taken, deliveries) = mpsc::channel(PREFETCH);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut read = cmd("XREADGROUP");
            read.arg("GROUP").arg(GROUP).arg("hand").arg("COUNT").arg(PREFETCH);
            read.arg("BLOCK").arg(1_000).arg("STREAMS").arg(&stream).arg(">");
            while let Ok(entries) = read.query_async::<Entries>(&mut reader).await {
                let streams = entries.unwrap_or_default();
                for (entry, mut fields) in streams.into_iter().flat_map(|(_, entries)| entries) {
                    let mut field = |name: &str| fields.remove(name).unwrap_or_default();
                    let id = String::from_utf8_lossy(&field("ce_id")).into_owned();
                    let payload = field("data");
                    let (mut connection, stream) = (acks.clone(), stream.clone());
                    let ack = async move {
                        let mut ack = cmd("XACK");
                        ack.arg(stream).arg(GROUP).arg(entry);
                        Ok(ack.query_async::<()>(&mut connection).await?)
                    };
                    if taken.send(Taken { id, payload, ack: ack.boxed() }).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Receiving { deliveries, _task: task })
    }

    async fn holds(&self, messages: u32) -> Result<()> {
        let mut connection = self.connect().await?;
        let length = cmd("XLEN").arg(&self.stream).query_async::<u32>(&mut connection).await;
        let found = length.context("no length")?;
        ensure!(found == messages, "void: the stream has {found} of {messages}");
        Ok(())
    }
}

pub(crate) struct RedisSender {
    connection: MultiplexedConnection,
    stream: String,
}

impl Sender for RedisSender {
    async fn send(&mut self, rows: &[PgRow]) -> Result<()> {
        let send = async |row: &PgRow| -> Result<()> {
            let mut add = cmd("XADD");
            add.arg(&self.stream).arg("*");
            for (name, value) in properties(row) {
                add.arg(name).arg(value);
            }
            add.arg("data").arg(row.get::<&[u8], _>(5));
            add.query_async::<String>(&mut self.connection.clone()).await?;
            Ok(())
        };
        join_all(rows.iter().map(send)).await.into_iter().collect()
    }
}
