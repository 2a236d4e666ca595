//! RabbitMQ as the source: a hand-written loop with one INSERT a message, and our consumer with a
//! handler that does the same. Both have the same prefetch, as many database connections, and one
//! connection to the broker.

use super::{
    fill::{KEYS, PAYLOAD, key},
    rabbit::Queue,
};
use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use outbox_amqp::{AmqpPublisher, AmqpSubscriber};
use outbox_core::{
    consumer::{Consumer, HandlerContext},
    event::{Headers, Message, MessageId, MessageParts, Timestamp},
    transport::{Publisher, publish_all},
};
use outbox_sea_orm::{Outbox, OutboxEvent, OutboxTransaction};
use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, Statement,
    sqlx::{self, PgPool},
};
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tests::servers::rabbitmq;
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{interval, timeout},
};

/// Messages that ours handles at once, each over a connection to the database; the baseline handles
/// as many.
pub(crate) const AT_ONCE: u32 = 16;
/// Batches handled at once, each over a connection too.
pub(crate) const BATCHES: usize = 8;
/// The prefetch: the size of the batches, twice.
const PREFETCH: u16 = 1_024;
/// The pause between two polls for the last acknowledgement.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// How long a side may take.
const TIME_LIMIT: Duration = Duration::from_secs(180);
/// The statement of both sides for a message.
pub(crate) const EFFECT: &str = "INSERT INTO orders (customer, total) VALUES ($1, $2)";

/// The order of a message.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.received", topic = "orders")]
pub(crate) struct OrderReceived {
    #[outbox(key)]
    pub(crate) customer: String,
    pub(crate) total: i64,
    note: String,
}

/// Fills a queue, keys in turn, payloads of the usual size.
pub(crate) async fn fill(queue: &Queue, messages: u32) -> Result<()> {
    publish_messages(&AmqpPublisher::new(rabbitmq::shared_url())?.queue(queue.name()), messages)
        .await
}

/// Publishes messages, keys in turn, payloads of the usual size.
pub(crate) async fn publish_messages(publisher: &impl Publisher, messages: u32) -> Result<()> {
    let numbers: Vec<u32> = (0..messages).collect();
    for batch in numbers.chunks(1_000) {
        let batch = batch.iter().map(|number| message(*number)).collect::<Result<Vec<_>>>()?;
        for outcome in publish_all(publisher, &batch).await {
            outcome?;
        }
    }
    Ok(())
}

fn message(number: u32) -> Result<Message> {
    let customer = key(usize::try_from(number)? % KEYS);
    let order = |note| OrderReceived { customer: customer.clone(), total: number.into(), note };
    let frame = order(String::new()).payload()?.len();
    let order = order("x".repeat(PAYLOAD.saturating_sub(frame)));
    Ok(Message::new(MessageParts {
        id: MessageId::generate(),
        sequence: None,
        source: "bench".into(),
        event_type: "order.received".into(),
        event_version: 1,
        topic: "orders".into(),
        aggregate_type: None,
        key: Some(customer.clone()),
        content_type: "application/json".into(),
        payload: order.payload()?,
        headers: Headers::new(),
        created_at: Timestamp::from_micros(1_700_000_000_000_000),
        expires_at: None,
        retry: None,
    }))
}

/// Receives by a hand-written loop: so many tasks that take a delivery, insert one row, and
/// acknowledge. With `once` it avoids duplicate rows: it inserts into a table of received messages,
/// in one transaction with the row.
pub(crate) async fn baseline(
    pool: &PgPool,
    queue: &Queue,
    messages: u32,
    once: bool,
) -> Result<Duration> {
    let seen = "CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY); TRUNCATE seen";
    sqlx::raw_sql(seen).execute(pool).await?;
    let begun = Instant::now();
    let connection =
        Connection::connect(&rabbitmq::shared_url(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
    let consumer =
        channel.basic_consume(queue.name().into(), tag, options, FieldTable::default()).await?;
    let shared = Arc::new(Mutex::new((consumer, messages)));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (shared, pool) = (Arc::clone(&shared), pool.clone());
        tasks.spawn(async move {
            loop {
                let delivery = {
                    let mut shared = shared.lock().await;
                    if shared.1 == 0 {
                        return Ok::<_, anyhow::Error>(());
                    }
                    shared.1 -= 1;
                    shared.0.next().await.context("the server cancelled the consumer")??
                };
                let order: OrderReceived = serde_json::from_slice(&delivery.data)?;
                let effect = sqlx::query(EFFECT).bind(order.customer).bind(order.total);
                if once {
                    let id = delivery
                        .properties
                        .message_id()
                        .as_ref()
                        .context("a message without id")?;
                    let mut tx = pool.begin().await?;
                    let seen = sqlx::query("INSERT INTO seen VALUES ($1) ON CONFLICT DO NOTHING")
                        .bind(id.as_str());
                    if seen.execute(&mut *tx).await?.rows_affected() > 0 {
                        effect.execute(&mut *tx).await?;
                    }
                    tx.commit().await?;
                } else {
                    effect.execute(&pool).await?;
                }
                delivery.acker.ack(BasicAckOptions::default()).await?;
            }
        });
    }
    while let Some(ended) = timeout(TIME_LIMIT, tasks.join_next()).await? {
        ended??;
    }
    let took = begun.elapsed();
    connection.close(200, ShortString::default()).await?;
    Ok(took)
}

/// How our consumer handles messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handling {
    /// With all defaults of consumer and subscriber.
    Defaults,
    OneByOne,
    /// In transactions of so many, behind a savepoint each.
    Batched(usize),
}

/// Receives by our consumer with all defaults, one by one with the prefetch and the concurrency of
/// the baseline, or with batches; the time runs until the last acknowledgement.
pub(crate) async fn by_consumer(
    outbox: &Outbox,
    queue: &Queue,
    messages: u32,
    handling: Handling,
) -> Result<Duration> {
    let begun = Instant::now();
    let subscriber = AmqpSubscriber::new(rabbitmq::shared_url(), queue.name())?;
    let consumer = Consumer::builder("bench", outbox).on("receive", receive);
    let consumer = match handling {
        Handling::Defaults => consumer.subscribe(subscriber),
        Handling::OneByOne => consumer
            .subscribe(subscriber.prefetch(PREFETCH))
            .one_by_one()
            .concurrency(AT_ONCE as usize),
        Handling::Batched(batch) => consumer
            .subscribe(subscriber.prefetch(PREFETCH))
            .batched(batch)
            .concurrency(BATCHES)
            .prefetch(batch * BATCHES),
    };
    let handle = consumer.start().await?;
    acked(&handle, messages).await?;
    let took = begun.elapsed();
    let stats = *handle.stats().borrow();
    handle.shutdown(Duration::from_secs(10)).await?;
    ensure!(stats.handled == u64::from(messages), "void: {stats:?}");
    Ok(took)
}

/// Waits until so many are acknowledged. It polls: a wait for the signal would wake at every
/// message, and be part of the measurement.
pub(crate) async fn acked(handle: &Consumer, messages: u32) -> Result<()> {
    let (mut polls, stats) = (interval(POLL_INTERVAL), handle.stats());
    let all = async {
        while stats.borrow().acked < u64::from(messages) {
            stats.has_changed().context("it has ended")?;
            polls.tick().await;
        }
        Ok(())
    };
    timeout(TIME_LIMIT, all).await.context("it stands still")?
}

pub(crate) async fn receive(
    order: OrderReceived,
    cx: &HandlerContext<OutboxTransaction>,
) -> Result<(), DbErr> {
    let values = [order.customer.into(), order.total.into()];
    cx.tx
        .execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, EFFECT, values))
        .await
        .map(|_| ())
}
