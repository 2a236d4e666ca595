//! A broker as the destination and as the source: what the loops by hand over NATS, Redis and MQTT
//! have in common, and our relay and consumer with their defaults.

use super::{
    fill::PARTITIONS,
    ours,
    receive::{AT_ONCE, EFFECT, OrderReceived, acked, publish_messages, receive},
};
use anyhow::{Context, Result, ensure};
use futures_util::future::BoxFuture;
use outbox_core::{
    consumer::Consumer,
    transport::{Publisher, Subscriber},
};
use outbox_sea_orm::Outbox;
use sea_orm::sqlx::{self, Connection as _, PgConnection, PgPool, Row, postgres::PgRow};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::timeout,
};

/// How long a side may take.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(180);
/// Messages that a loop by hand has before it has acknowledged them, as our subscribers by default.
pub(crate) const PREFETCH: usize = 128;

/// A private server, with a place for the messages of the round.
pub(crate) trait Broker: Sized {
    /// The name in figures.
    const NAME: &'static str;
    /// Publishes by the client library.
    type Sender: Sender;

    /// Starts one.
    async fn start() -> Result<Self>;

    /// Makes a place for the messages of the next round, with its consumer.
    async fn renew(&mut self) -> Result<()>;

    fn publisher(&self) -> Result<impl Publisher + 'static>;

    fn subscriber(&self) -> Result<impl Subscriber + 'static>;

    async fn sender(&self) -> Result<Self::Sender>;

    /// Begins to receive by the client library.
    async fn receive(&self) -> Result<Receiving>;

    /// Fails where the place does not have so many messages.
    async fn holds(&self, messages: u32) -> Result<()>;
}

/// A loop by hand that publishes.
pub(crate) trait Sender {
    /// Publishes events side by side, and waits until all are confirmed.
    async fn send(&mut self, rows: &[PgRow]) -> Result<()>;
}

/// What is received by the client library; its task ends when this is dropped.
pub(crate) struct Receiving {
    pub(crate) deliveries: mpsc::Receiver<Taken>,
    pub(crate) _task: JoinSet<()>,
}

/// A message with what acknowledges it.
pub(crate) struct Taken {
    pub(crate) id: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) ack: BoxFuture<'static, Result<()>>,
}

/// The properties that a loop by hand sets: id, type, key and media type of an event.
pub(crate) fn properties(row: &PgRow) -> [(&'static str, String); 4] {
    let id: sea_orm::prelude::Uuid = row.get(1);
    [
        ("id", id.to_string()),
        ("type", row.get(2)),
        ("key", row.get(3)),
        ("content-type", row.get(4)),
    ]
}

/// What a loop by hand reads: the events of a partition behind a position, so many.
const SELECT: &str = "SELECT event_id, message_id, event_type, message_key, content_type, payload \
    FROM outbox_events WHERE partition_no = $1 AND event_id > $2 ORDER BY event_id LIMIT $3";

/// Drains by a hand-written loop: SELECT, publish, DELETE, partition after partition. The statement
/// takes partition, position and limit, and gives the id of an event first.
pub(crate) async fn drain_partitions(
    database: &mut PgConnection,
    select: &'static str,
    batch: i64,
    sender: &mut impl Sender,
) -> Result<()> {
    let mut positions = [0_i64; PARTITIONS as usize];
    let mut found = true;
    while found {
        found = false;
        for (partition, position) in (0_i16..).zip(&mut positions) {
            let rows = sqlx::query(select)
                .bind(partition)
                .bind(*position)
                .bind(batch)
                .fetch_all(&mut *database)
                .await?;
            let Some(last) = rows.last() else { continue };
            found = true;
            *position = last.get(0);
            sender.send(&rows).await?;
            let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
            sqlx::query("DELETE FROM outbox_events WHERE partition_no = $1 AND event_id = ANY($2)")
                .bind(partition)
                .bind(&ids)
                .execute(&mut *database)
                .await?;
        }
    }
    Ok(())
}

/// Drains by a loop by hand, with as many in flight as our publisher has by its defaults.
pub(crate) async fn drained_by_hand<B: Broker>(database: &str, broker: &B) -> Result<Duration> {
    let limits = broker.publisher()?.limits();
    let batch = i64::try_from(limits.max_batch * limits.max_in_flight)?;
    let begun = Instant::now();
    let mut database = PgConnection::connect(database).await?;
    let mut sender = broker.sender().await?;
    drain_partitions(&mut database, SELECT, batch, &mut sender).await?;
    let took = begun.elapsed();
    database.close().await?;
    Ok(took)
}

/// Drains by our relay and publisher, with their defaults; the time runs until the last event is
/// finished in the database.
pub(crate) async fn drained_by_relay<B: Broker>(
    outbox: &Outbox,
    events: u32,
    broker: &B,
) -> Result<(Duration, String)> {
    ours::drain_to(outbox, events, broker.publisher()?).await
}

/// Fills the place, keys in turn, payloads of the usual size.
pub(crate) async fn fill<B: Broker>(broker: &B, messages: u32) -> Result<()> {
    publish_messages(&broker.publisher()?, messages).await
}

/// Receives by a hand-written loop that does each message once: so many tasks that take one, insert
/// its id into a table of received messages and its row in one transaction, and acknowledge it.
pub(crate) async fn received_by_hand<B: Broker>(
    pool: &PgPool,
    broker: &B,
    messages: u32,
) -> Result<Duration> {
    let seen = "CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY); TRUNCATE seen";
    sqlx::raw_sql(seen).execute(pool).await?;
    let begun = Instant::now();
    let Receiving { deliveries, _task } = broker.receive().await?;
    let shared = Arc::new(Mutex::new((deliveries, messages)));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (shared, pool) = (Arc::clone(&shared), pool.clone());
        tasks.spawn(async move {
            loop {
                let taken = {
                    let mut shared = shared.lock().await;
                    if shared.1 == 0 {
                        return Ok::<_, anyhow::Error>(());
                    }
                    shared.1 -= 1;
                    shared.0.recv().await.context("the broker gives no more")?
                };
                let order: OrderReceived = serde_json::from_slice(&taken.payload)?;
                let mut tx = pool.begin().await?;
                let seen = sqlx::query("INSERT INTO seen VALUES ($1) ON CONFLICT DO NOTHING")
                    .bind(&taken.id);
                if seen.execute(&mut *tx).await?.rows_affected() > 0 {
                    let effect = sqlx::query(EFFECT).bind(order.customer).bind(order.total);
                    effect.execute(&mut *tx).await?;
                }
                tx.commit().await?;
                taken.ack.await?;
            }
        });
    }
    while let Some(ended) = timeout(TIME_LIMIT, tasks.join_next()).await? {
        ended??;
    }
    Ok(begun.elapsed())
}

/// Receives by our consumer with all its defaults; the time runs until the last acknowledgement.
pub(crate) async fn received_by_consumer<B: Broker>(
    outbox: &Outbox,
    broker: &B,
    messages: u32,
) -> Result<Duration> {
    let begun = Instant::now();
    let consumer = Consumer::builder("bench", outbox).on("receive", receive);
    let handle = consumer.subscribe(broker.subscriber()?).start().await?;
    acked(&handle, messages).await?;
    let took = begun.elapsed();
    let stats = *handle.stats().borrow();
    handle.shutdown(Duration::from_secs(10)).await?;
    ensure!(stats.handled == u64::from(messages), "void: {stats:?}");
    Ok(took)
}
