//! Kafka as the destination and as the source: a topic for each round, hand-written loops, and
//! ours.
//!
//! All use librdkafka. The baseline's producer has the settings of ours, and its consumer commits
//! by librdkafka's own timer, without an inbox and without regard to the order in which its tasks
//! end.

use super::{
    broker::{Sender, drain_partitions},
    checker::Checker,
    fill::{PARTITIONS, record},
    ours,
    receive::{
        AT_ONCE, BATCHES, EFFECT, Handling, OrderReceived, acked, publish_messages, receive,
    },
};
use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use outbox_core::{
    consumer::Consumer,
    event::{MessageId, Timestamp},
    transport::{Publisher, publish_all},
};
use outbox_kafka::{KafkaPublisher, KafkaSubscriber, Topic};
use outbox_sea_orm::Outbox;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{Consumer as _, StreamConsumer},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use sea_orm::{
    prelude::Uuid,
    sqlx::{self, Connection as _, PgConnection, PgPool, Row, postgres::PgRow},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tests::servers::Server;
use tokio::{task::JoinSet, time::timeout};

/// How long a side may take.
const TIME_LIMIT: Duration = Duration::from_secs(180);

/// A topic of a broker, for one round.
pub(crate) struct Bus {
    brokers: String,
    topic: String,
}

impl Bus {
    /// Names one.
    pub(crate) fn new(server: &Server) -> Self {
        Self {
            brokers: server.url().replace("kafka://", ""),
            topic: format!("bench.{}", MessageId::generate()),
        }
    }

    fn publisher(&self) -> Result<KafkaPublisher> {
        let topics = [Topic::new(&self.topic).partitions(PARTITIONS)];
        Ok(KafkaPublisher::new(&self.brokers)?.topic(&self.topic).declare(topics).build()?)
    }

    /// Makes the topic.
    pub(crate) async fn declare(&self) -> Result<()> {
        // A publisher declares its topics before the first record, even where there is none.
        publish_all(&self.publisher()?, &[]).await;
        Ok(())
    }

    /// Makes the topic and fills it, keys in turn, payloads of the usual size.
    pub(crate) async fn fill(&self, messages: u32) -> Result<()> {
        publish_messages(&self.publisher()?, messages).await
    }

    /// Fails where the topic does not have the record of each waiting event once, those of a key in
    /// order.
    pub(crate) async fn holds(&self, records: u32) -> Result<()> {
        let consumer: StreamConsumer = self.client().set("group.id", "count").create()?;
        let mut found = 0;
        for partition in 0..i32::from(PARTITIONS) {
            let (low, high) =
                consumer.fetch_watermarks(&self.topic, partition, Duration::from_secs(10))?;
            found += high - low;
        }
        ensure!(found == i64::from(records), "void: the topic has {found} of {records} records");
        let consumer: StreamConsumer = self.client().set("group.id", "check").create()?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..i32::from(PARTITIONS) {
            assignment.add_partition_offset(&self.topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        let checker = Checker::new(records);
        for _ in 0..records {
            let next = timeout(TIME_LIMIT, consumer.recv()).await;
            let next = next.context("the topic gives no more")??;
            record(&checker, next.payload().context("a record without value")?)?;
        }
        let faults = checker.faults();
        ensure!(!faults.void() && faults.duplicated == 0, "void: in the topic, {faults}");
        Ok(())
    }

    /// Names the headers of one record.
    pub(crate) async fn headers(&self) -> Result<Vec<String>> {
        use rdkafka::message::Headers as _;
        let consumer: StreamConsumer = self.client().set("group.id", "look").create()?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&self.topic, 0, Offset::Beginning)?;
        consumer.assign(&assignment)?;
        let record = timeout(TIME_LIMIT, consumer.recv()).await??;
        Ok(record
            .headers()
            .into_iter()
            .flat_map(|headers| headers.iter())
            .map(|header| header.key.to_owned())
            .collect())
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        client
    }
}

/// The headers of the baseline's records.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Headers {
    /// The headers of our publisher: all attributes of CloudEvents.
    Ours,
    /// The three headers that distinguish events.
    Three,
}

impl Headers {
    fn of(self, row: &PgRow) -> Result<OwnedHeaders> {
        let id = row.get::<Uuid, _>(1).to_string();
        if self == Self::Three {
            return Ok(headers(&[("id", &id), ("type", row.get(2)), ("content-type", row.get(4))]));
        }
        let (sequence, version) =
            (row.get::<i64, _>(0).to_string(), row.get::<i32, _>(8).to_string());
        let time =
            Timestamp::from_micros(row.get(10)).to_rfc3339().context("an event of no time")?;
        Ok(headers(&[
            ("ce_specversion", "1.0"),
            ("ce_id", &id),
            ("ce_source", row.get(6)),
            ("ce_type", row.get(2)),
            ("ce_time", &time),
            ("content-type", row.get(4)),
            ("ce_subject", row.get(3)),
            ("ce_partitionkey", row.get(3)),
            ("ce_sequence", &sequence),
            ("ce_eventversion", &version),
            ("ce_aggregatetype", row.get(9)),
            ("ce_topic", row.get(7)),
        ]))
    }
}

fn headers(texts: &[(&str, &str)]) -> OwnedHeaders {
    texts.iter().fold(OwnedHeaders::new_with_capacity(texts.len()), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(*value) })
    })
}

/// What the baseline reads: the attributes of its headers too.
const SELECT: &str = "SELECT event_id, message_id, event_type, message_key, content_type, payload, source, topic, \
    event_version, aggregate_type, created_at \
    FROM outbox_events WHERE partition_no = $1 AND event_id > $2 ORDER BY event_id LIMIT $3";

/// The baseline's producer, which waits for the delivery reports.
struct Producer<'a> {
    producer: FutureProducer,
    topic: &'a str,
    headers: Headers,
}

impl Sender for Producer<'_> {
    async fn send(&mut self, rows: &[PgRow]) -> Result<()> {
        let mut reports = Vec::with_capacity(rows.len());
        for row in rows {
            let record = FutureRecord::to(self.topic)
                .key(row.get::<&str, _>(3))
                .payload(row.get::<&[u8], _>(5));
            let sent = self.producer.send_result(record.headers(self.headers.of(row)?));
            reports.push(sent.map_err(|(error, _)| error)?);
        }
        for report in join_all(reports).await {
            report?.map_err(|(error, _)| error)?;
        }
        Ok(())
    }
}

/// Drains by a hand-written loop: SELECT, produce with delivery reports, DELETE, partition after
/// partition.
pub(crate) async fn baseline(database: &str, bus: &Bus, headers: Headers) -> Result<Duration> {
    let limits = bus.publisher()?.limits();
    let batch = i64::try_from(limits.max_batch * limits.max_in_flight)?;
    let begun = Instant::now();
    let mut database = PgConnection::connect(database).await?;
    let mut client = bus.client();
    client.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "0");
    client.set("partitioner", "murmur2_random");
    let producer: FutureProducer = client.create()?;
    let mut sender = Producer { producer, topic: &bus.topic, headers };
    drain_partitions(&mut database, SELECT, batch, &mut sender).await?;
    let took = begun.elapsed();
    database.close().await?;
    Ok(took)
}

/// Drains by our relay and publisher, with their defaults; the time runs until the last event is finished in the database.
pub(crate) async fn by_relay(
    outbox: &Outbox,
    events: u32,
    bus: &Bus,
) -> Result<(Duration, String)> {
    ours::drain_to(outbox, events, bus.publisher()?).await
}

/// Receives by a hand-written loop: so many tasks that take a record and insert one row. With
/// `once` it avoids duplicate rows: it inserts into a table of received messages, in one
/// transaction with the row. The time runs from the first record, as joining a group takes a while.
pub(crate) async fn received_by_baseline(
    pool: &PgPool,
    bus: &Bus,
    messages: u32,
    once: bool,
) -> Result<Duration> {
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY); TRUNCATE seen")
        .execute(pool)
        .await?;
    let mut client = bus.client();
    client.set("group.id", "bench").set("auto.offset.reset", "earliest");
    client.set("enable.auto.commit", "true").set("enable.auto.offset.store", "false");
    let consumer: Arc<StreamConsumer> = Arc::new(client.create()?);
    consumer.subscribe(&[&bus.topic])?;
    let begun = Arc::new(std::sync::OnceLock::new());
    let left = Arc::new(AtomicU32::new(messages));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (consumer, left, pool, begun) =
            (consumer.clone(), left.clone(), pool.clone(), begun.clone());
        tasks.spawn(async move {
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
            {
                let record = consumer.recv().await?;
                begun.get_or_init(Instant::now);
                let order: OrderReceived =
                    serde_json::from_slice(record.payload().context("a record without value")?)?;
                let effect = sqlx::query(EFFECT).bind(order.customer).bind(order.total);
                if once {
                    let id = id(&record).context("a record without id")?;
                    let mut tx = pool.begin().await?;
                    let seen =
                        sqlx::query("INSERT INTO seen VALUES ($1) ON CONFLICT DO NOTHING").bind(id);
                    if seen.execute(&mut *tx).await?.rows_affected() > 0 {
                        effect.execute(&mut *tx).await?;
                    }
                    tx.commit().await?;
                } else {
                    effect.execute(&pool).await?;
                }
                consumer.store_offset_from_message(&record)?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(ended) = timeout(TIME_LIMIT, tasks.join_next()).await? {
        ended??;
    }
    Ok(begun.get().context("nothing came")?.elapsed())
}

fn id(record: &rdkafka::message::BorrowedMessage<'_>) -> Option<String> {
    use rdkafka::message::Headers as _;
    let header = record.headers()?.iter().find(|header| header.key == "ce_id")?;
    String::from_utf8(header.value?.to_vec()).ok()
}

/// Receives by our consumer with all defaults, one by one, or with batches; the time runs from the
/// first message to the last acknowledgement.
pub(crate) async fn received_by_consumer(
    outbox: &Outbox,
    bus: &Bus,
    messages: u32,
    handling: Handling,
) -> Result<Duration> {
    let subscriber = KafkaSubscriber::new(&bus.brokers, "bench")?.topic(&bus.topic).build()?;
    let consumer = Consumer::builder("bench", outbox).on("receive", receive).subscribe(subscriber);
    let consumer = match handling {
        Handling::Defaults => consumer,
        Handling::OneByOne => consumer.one_by_one(),
        Handling::Batched(batch) => {
            consumer.batched(batch).concurrency(BATCHES).prefetch(batch * BATCHES)
        }
    };
    let handle = consumer.start().await?;
    timeout(TIME_LIMIT, handle.stats().wait_for(|stats| stats.received > 0))
        .await
        .context("nothing comes")??;
    let begun = Instant::now();
    acked(&handle, messages).await?;
    let took = begun.elapsed();
    let stats = *handle.stats().borrow();
    handle.shutdown(Duration::from_secs(10)).await?;
    ensure!(stats.handled == u64::from(messages), "void: {stats:?}");
    Ok(took)
}
