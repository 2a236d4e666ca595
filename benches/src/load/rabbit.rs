//! RabbitMQ as the destination: a queue for each round, a hand-written loop, and our relay with its
//! defaults.

use super::{
    broker::{Sender, drain_partitions},
    checker::Checker,
    fill, ours,
};
use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, future::join_all};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use outbox_amqp::AmqpPublisher;
use outbox_core::{event::MessageId, transport::Publisher};
use outbox_sea_orm::Outbox;
use sea_orm::sqlx::{Connection as _, PgConnection, Row, postgres::PgRow};
use std::time::{Duration, Instant};
use tests::{holds_within, servers::rabbitmq};
use tokio::time::timeout;

/// How long the server may take to report the length of a queue.
const COUNTED_WITHIN: Duration = Duration::from_secs(20);

/// Messages that our publisher has in flight at once, by its defaults; the baseline has as many.
pub(crate) fn in_flight() -> Result<usize> {
    let limits = AmqpPublisher::new(rabbitmq::shared_url())?.limits();
    Ok(limits.max_batch * limits.max_in_flight)
}

/// Tells whether the shared server takes connections.
pub(crate) async fn answers() -> bool {
    match Connection::connect(&rabbitmq::shared_url(), ConnectionProperties::default()).await {
        Ok(connection) => connection.close(200, ShortString::default()).await.is_ok(),
        Err(_) => false,
    }
}

/// A quorum queue of the shared server, for one round.
pub(crate) struct Queue {
    name: String,
    channel: Channel,
    _connection: Connection,
}

impl Queue {
    /// Declares one.
    pub(crate) async fn declare() -> Result<Self> {
        let connection =
            Connection::connect(&rabbitmq::shared_url(), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let name = format!("bench.{}", MessageId::generate());
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(name.as_str().into(), durable, arguments).await?;
        Ok(Self { name, channel, _connection: connection })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Fails where it does not hold the message of each waiting event once, those of a key in order;
    /// deletes it.
    pub(crate) async fn holds(self, events: u32) -> Result<()> {
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let mut count = 0;
        let all = holds_within(COUNTED_WITHIN, async || {
            let queue = self
                .channel
                .queue_declare(self.name.as_str().into(), passive, FieldTable::default())
                .await;
            count = queue.map_or(0, |queue| queue.message_count());
            count == events
        })
        .await;
        let checked = if all { self.check(events).await } else { Ok(()) };
        self.delete().await?;
        ensure!(all, "void: the queue has {count} of {events} messages");
        checked
    }

    /// Reads all messages, and fails where one is missing, there twice, or behind a later one of its
    /// key.
    async fn check(&self, events: u32) -> Result<()> {
        let (tag, options) =
            (ShortString::default(), BasicConsumeOptions { no_ack: true, ..Default::default() });
        let queue = self.name.as_str().into();
        let consumer =
            self.channel.basic_consume(queue, tag, options, FieldTable::default()).await?;
        let (mut messages, checker) = (consumer.take(events as usize), Checker::new(events));
        while let Some(message) =
            timeout(COUNTED_WITHIN, messages.next()).await.context("the queue gives no more")?
        {
            fill::record(&checker, &message?.data)?;
        }
        let faults = checker.faults();
        ensure!(!faults.void() && faults.duplicated == 0, "void: in the queue, {faults}");
        Ok(())
    }

    /// Deletes it.
    pub(crate) async fn delete(self) -> Result<()> {
        self.channel.queue_delete(self.name.as_str().into(), Default::default()).await?;
        Ok(())
    }
}

/// What the baseline reads: the time of an event too.
const SELECT: &str = "SELECT event_id, message_id, event_type, message_key, content_type, payload, created_at \
    FROM outbox_events WHERE partition_no = $1 AND event_id > $2 ORDER BY event_id LIMIT $3";

/// The baseline's channel with confirms: it sends all messages before it waits for the first one.
struct Confirmed<'a> {
    channel: &'a Channel,
    queue: &'a str,
}

impl Sender for Confirmed<'_> {
    async fn send(&mut self, rows: &[PgRow]) -> Result<()> {
        let (channel, queue) = (self.channel, self.queue);
        for confirmed in join_all(rows.iter().map(|row| publish(channel, queue, row))).await {
            ensure!(confirmed? == Confirmation::Ack(None), "a message was not confirmed");
        }
        Ok(())
    }
}

/// Drains by a hand-written loop: SELECT, publish with confirms, DELETE, partition after partition.
/// A message has the properties that such a loop would set, and no attributes of CloudEvents.
pub(crate) async fn baseline(database: &str, queue: &Queue) -> Result<Duration> {
    let (begun, batch) = (Instant::now(), i64::try_from(in_flight()?)?);
    let mut database = PgConnection::connect(database).await?;
    let connection =
        Connection::connect(&rabbitmq::shared_url(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut sender = Confirmed { channel: &channel, queue: &queue.name };
    drain_partitions(&mut database, SELECT, batch, &mut sender).await?;
    let took = begun.elapsed();
    connection.close(200, ShortString::default()).await?;
    database.close().await?;
    Ok(took)
}

async fn publish(channel: &Channel, queue: &str, row: &PgRow) -> Result<Confirmation> {
    let mut headers = FieldTable::default();
    headers.insert("key".into(), AMQPValue::LongString(LongString::from(row.get::<&str, _>(3))));
    let id: sea_orm::prelude::Uuid = row.get(1);
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(id.to_string().as_str().into())
        .with_type(row.get::<&str, _>(2).into())
        .with_content_type(row.get::<&str, _>(4).into())
        .with_timestamp(u64::try_from(row.get::<i64, _>(6) / 1_000_000)?)
        .with_headers(headers);
    let mandatory = BasicPublishOptions { mandatory: true, ..Default::default() };
    let payload = row.get::<&[u8], _>(5);
    let publish = channel.basic_publish("".into(), queue.into(), mandatory, payload, properties);
    publish.await?.await.context("a publish failed")
}

/// Drains by our relay and publisher, with their defaults; the time runs until the last event is finished in the database.
pub(crate) async fn by_relay(
    outbox: &Outbox,
    events: u32,
    queue: &Queue,
) -> Result<(Duration, String)> {
    let publisher = AmqpPublisher::new(rabbitmq::shared_url())?.queue(&queue.name).build()?;
    ours::drain_to(outbox, events, publisher).await
}
