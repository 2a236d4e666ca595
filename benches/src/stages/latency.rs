//! From commit to receipt: at a steady rate, whatever becomes of earlier events, and after a
//! silence.

use crate::{
    environment::Environment,
    figures::{Rounds, percentile},
    load::{fill::number_of, ours::MeteredOutbox},
    stages::write::{INSERT_ORDER, OrderPlaced, insert_event},
};
use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use outbox_core::{
    event::Message,
    transport::{PublishError, Publisher, Receipt},
};
use outbox_sea_orm::Outbox;
use sea_orm::{
    ConnectionTrait, DbBackend, Statement,
    sqlx::{self, Connection, PgConnection, PgPool},
};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, sleep_until},
};

/// Connections of the producers: at 1,000 events a second as many as wait for a slow disk.
const PRODUCERS: u32 = 32;
/// How long the last event of a round may take.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// The load of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    /// Events a second.
    pub(crate) rate: u32,
    pub(crate) rounds: usize,
    pub(crate) round: Duration,
}

/// One side, round by round, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Side {
    pub(crate) p50: Rounds,
    pub(crate) p99: Rounds,
    /// Events a second that were committed.
    pub(crate) rate: Rounds,
}

/// One round of a side.
struct Round {
    /// Milliseconds of each event.
    spans: Vec<f64>,
    /// Events a second that were committed.
    rate: f64,
}

/// Both sides.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    pub(crate) ours: Side,
    pub(crate) floor: Side,
}

/// When each event was committed and received.
struct Watch {
    committed: Vec<OnceLock<Instant>>,
    received: Vec<OnceLock<Instant>>,
    twice: AtomicU64,
}

/// Both sides, running: a relay, and a consumer that its producer notifies in this process.
pub(crate) struct LatencyRun {
    ours: Environment,
    floor: Environment,
    watches: [Arc<Watch>; 2],
    committed: mpsc::UnboundedSender<Committed>,
    relay: outbox_core::relay::Relay,
    consumer: tokio::task::JoinHandle<Result<()>>,
    sent: usize,
}

/// What the floor's producer sends to its consumer: one event that it has committed.
struct Committed {
    partition: i16,
    id: i64,
    number: usize,
}

impl LatencyRun {
    /// Opens both, for so many events.
    pub(crate) async fn open(events: usize) -> Result<Self> {
        let (ours, floor) =
            (Environment::shared(PRODUCERS).await?, Environment::shared(PRODUCERS).await?);
        let watches = [Watch::new(events), Watch::new(events)];
        let metered = MeteredOutbox::new(&ours.outbox, u64::MAX);
        let relay = metered.start(Receives(Arc::clone(&watches[0]))).await?;
        let (committed, received) = mpsc::unbounded_channel();
        let consumer =
            tokio::spawn(consume(floor.url().to_owned(), received, Arc::clone(&watches[1])));
        relay.stats().wait_for(|stats| stats.partitions > 0).await?;
        let mut run = Self { ours, floor, watches, committed, relay, consumer, sent: 0 };
        // Connections, statements, caches.
        let warm = Latency { rate: 200, rounds: 1, round: Duration::from_millis(500) };
        run.run(warm).await?;
        Ok(run)
    }

    /// Sends at a rate, ours and the floor in turn.
    pub(crate) async fn run(&mut self, latency: Latency) -> Result<Latencies> {
        let mut latencies = Latencies::default();
        let events = (latency.round.as_secs_f64() * f64::from(latency.rate)) as usize;
        for round in 0..latency.rounds {
            for is_ours in [round % 2 == 0, round % 2 == 1] {
                let Round { spans, rate } =
                    self.round(is_ours, events, Duration::from_secs(1) / latency.rate).await?;
                let side = if is_ours { &mut latencies.ours } else { &mut latencies.floor };
                side.p50.push(percentile(&spans, 0.5));
                side.p99.push(percentile(&spans, 0.99));
                side.rate.push(rate);
            }
        }
        Ok(latencies)
    }

    /// Sends one event a side after each silence.
    pub(crate) async fn after_silence(
        &mut self,
        rounds: usize,
        silence: Duration,
    ) -> Result<Latencies> {
        let mut latencies = Latencies::default();
        for _ in 0..rounds {
            sleep(silence).await;
            latencies.ours.p50.extend(self.round(true, 1, Duration::ZERO).await?.spans);
            latencies.floor.p50.extend(self.round(false, 1, Duration::ZERO).await?.spans);
        }
        Ok(latencies)
    }

    /// Ends both.
    pub(crate) async fn close(self) -> Result<()> {
        self.relay.shutdown(Duration::from_secs(10)).await?;
        drop(self.committed);
        self.consumer.await?
    }

    /// Sends events on time, whatever becomes of earlier ones.
    async fn round(&mut self, is_ours: bool, events: usize, pause: Duration) -> Result<Round> {
        let watch = Arc::clone(&self.watches[usize::from(!is_ours)]);
        let numbers = self.sent..self.sent + events;
        self.sent = numbers.end;
        let (begun, mut sent) = (tokio::time::Instant::now(), JoinSet::new());
        for (turn, number) in (0_u32..).zip(numbers.clone()) {
            sleep_until(begun + pause * turn).await;
            let watch = Arc::clone(&watch);
            if is_ours {
                sent.spawn(send_ours(self.ours.outbox.clone(), number, watch));
            } else {
                sent.spawn(send_baseline(
                    self.floor.pool.clone(),
                    number,
                    watch,
                    self.committed.clone(),
                ));
            }
        }
        while let Some(done) = sent.join_next().await {
            done??;
        }
        let rate = events as f64 / begun.elapsed().as_secs_f64();
        let deadline = Instant::now() + TIME_LIMIT;
        while let Some(number) =
            numbers.clone().find(|&number| watch.received[number].get().is_none())
        {
            if Instant::now() > deadline {
                bail!("event {number} has not arrived");
            }
            sleep(Duration::from_millis(1)).await;
        }
        let twice = watch.twice.load(Relaxed);
        ensure!(twice == 0, "void: {twice} events were received twice");
        let spans = numbers
            .map(|number| watch.span(number).context("an event was received and not sent"))
            .collect::<Result<_>>()?;
        Ok(Round { spans, rate })
    }
}

impl Watch {
    fn new(events: usize) -> Arc<Self> {
        let blank = || (0..events).map(|_| OnceLock::new()).collect();
        Arc::new(Self { committed: blank(), received: blank(), twice: AtomicU64::new(0) })
    }

    fn committed(&self, number: usize) {
        let _ = self.committed[number].set(Instant::now());
    }

    fn received(&self, number: usize) {
        if self.received[number].set(Instant::now()).is_err() {
            self.twice.fetch_add(1, Relaxed);
        }
    }

    /// Milliseconds from commit to receipt.
    fn span(&self, number: usize) -> Option<f64> {
        let (from, to) = (self.committed[number].get()?, self.received[number].get()?);
        Some(to.saturating_duration_since(*from).as_secs_f64() * 1_000.0)
    }
}

/// A destination that records the instant of receipt.
struct Receives(Arc<Watch>);

#[async_trait]
impl Publisher for Receives {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let number = message.key.as_deref().and_then(number_of);
        self.0.received(number.ok_or_else(|| PublishError::permanent("it has no number"))?);
        Ok(Receipt::new())
    }
}

async fn send_ours(outbox: Outbox, number: usize, watch: Arc<Watch>) -> Result<()> {
    let tx = outbox.begin().await?;
    let values = ["a customer".into(), i64::try_from(number)?.into()];
    tx.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, INSERT_ORDER, values))
        .await?;
    tx.emit(OrderPlaced::new(number))?;
    tx.after_commit(move || watch.committed(number));
    tx.commit().await?;
    Ok(())
}

async fn send_baseline(
    pool: PgPool,
    number: usize,
    watch: Arc<Watch>,
    committed: mpsc::UnboundedSender<Committed>,
) -> Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query(INSERT_ORDER)
        .bind("a customer")
        .bind(i64::try_from(number)?)
        .execute(&mut *tx)
        .await?;
    let (partition, id) = insert_event(&mut tx, &OrderPlaced::new(number)).await?;
    tx.commit().await?;
    watch.committed(number);
    committed.send(Committed { partition, id, number })?;
    Ok(())
}

/// The floor's consumer: for each announced event it selects the row, counts it as received, and deletes it.
async fn consume(
    url: String,
    mut received: mpsc::UnboundedReceiver<Committed>,
    watch: Arc<Watch>,
) -> Result<()> {
    let mut connection = PgConnection::connect(&url).await?;
    while let Some(Committed { partition, id, number }) = received.recv().await {
        sqlx::query(
            "SELECT event_id, message_id, source, topic, event_type, event_version, aggregate_type, message_key, \
             content_type, payload, headers, created_at, expires_at FROM outbox_events \
             WHERE partition_no = $1 AND event_id = $2",
        )
        .bind(partition)
        .bind(id)
        .fetch_one(&mut connection)
        .await?;
        watch.received(number);
        sqlx::query("DELETE FROM outbox_events WHERE partition_no = $1 AND event_id = $2")
            .bind(partition)
            .bind(id)
            .execute(&mut connection)
            .await?;
    }
    Ok(connection.close().await?)
}
