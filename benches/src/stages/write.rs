//! Writing: transactions with an order and some events, beside the same hand-written statements, by
//! the driver and by SeaORM.

use crate::{
    args::Sides,
    environment::Environment,
    figures::{Rounds, percentile},
    load::fill::{PARTITIONS, PAYLOAD, key},
};
use anyhow::{Context, Result, ensure};
use outbox_core::{event::MessageId, outbox::partition_of};
use outbox_sea_orm::{Outbox, OutboxEvent};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, Statement, TransactionTrait, Value,
    sqlx::{self, PgPool, Postgres, Row, Transaction},
};
use serde::Serialize;
use std::{
    future::Future,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// The order of the event.
pub(crate) const INSERT_ORDER: &str = "INSERT INTO orders (customer, total) VALUES ($1, $2)";

/// The event, by hand.
const INSERT_EVENT: &str = "INSERT INTO outbox_events (partition_no, message_id, source, topic, event_type, event_version, \
    aggregate_type, message_key, content_type, payload, headers, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, \
    $6, $7, $8, $9, $10, $11, (extract(epoch FROM statement_timestamp()) * 1000000)::bigint, NULL) RETURNING event_id";

/// The load of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Write {
    pub(crate) writers: u32,
    pub(crate) events: u32,
    pub(crate) rounds: usize,
    pub(crate) round: Duration,
    pub(crate) sides: Sides,
    /// Whether SeaORM's own transactions run too.
    pub(crate) sea_orm: bool,
}

/// One side of a comparison, round by round.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// Transactions a second.
    pub(crate) rate: Rounds,
    /// Milliseconds of a transaction.
    pub(crate) p50: Rounds,
    pub(crate) p99: Rounds,
}

/// All sides.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) ours: Side,
    /// The statements by hand, through the driver.
    pub(crate) raw: Side,
    /// The same statements in a plain SeaORM transaction.
    pub(crate) sea_orm: Side,
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Ours,
    Raw,
    SeaOrm,
}

impl Writer {
    fn runs(self, write: &Write) -> bool {
        match self {
            Self::Ours => write.sides.ours(),
            Self::Raw => write.sides.floor(),
            Self::SeaOrm => write.sides.floor() && write.sea_orm,
        }
    }
}

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders", aggregate = "order")]
pub(crate) struct OrderPlaced {
    #[outbox(key)]
    order: String,
    note: String,
}

impl OrderPlaced {
    /// Makes an event whose JSON has the size of every payload here.
    pub(crate) fn new(number: usize) -> Self {
        let order = key(number);
        let frame = r#"{"order":"","note":""}"#.len() + order.len();
        Self { order, note: "x".repeat(PAYLOAD.saturating_sub(frame)) }
    }
}

/// Measures all sides in turn, in an order that changes from round to round.
pub(crate) async fn run(environment: &Environment, write: Write) -> Result<Written> {
    let mut written = Written::default();
    let mut order: Vec<Writer> = [Writer::Ours, Writer::Raw, Writer::SeaOrm]
        .into_iter()
        .filter(|writer| writer.runs(&write))
        .collect();
    for _ in 0..write.rounds {
        for writer in order.iter().copied() {
            environment.empty().await?;
            let (outbox, pool, events) =
                (environment.outbox.clone(), environment.pool.clone(), write.events);
            let transactions = match writer {
                Writer::Ours => {
                    let once = move |order| one_of_ours(outbox.clone(), order, events);
                    drive(&mut written.ours, write, once).await?
                }
                Writer::Raw => {
                    let once = move |order| one_by_hand(pool.clone(), order, events);
                    drive(&mut written.raw, write, once).await?
                }
                Writer::SeaOrm => {
                    let db = outbox.connection().clone();
                    let once = move |order| one_by_sea_orm(db.clone(), order, events);
                    drive(&mut written.sea_orm, write, once).await?
                }
            };
            check(environment, transactions, write).await?;
        }
        // Of none there is nothing to turn.
        if !order.is_empty() {
            order.rotate_left(1);
        }
    }
    Ok(written)
}

/// Fails where a transaction did not leave its order and its events: the figure is void then.
async fn check(environment: &Environment, transactions: usize, write: Write) -> Result<()> {
    let orders = environment.number("SELECT count(*)::float8 FROM orders").await?;
    let events = environment.number("SELECT count(*)::float8 FROM outbox_events").await?;
    // Each writer ran two more for the warm-up.
    let transactions = transactions as f64 + f64::from(write.writers * 2);
    ensure!(
        (orders, events) == (transactions, transactions * f64::from(write.events)),
        "void: {orders} orders and {events} events of {transactions} transactions"
    );
    Ok(())
}

/// Runs the writers for one round; gives how many transactions they committed.
async fn drive<F>(
    side: &mut Side,
    write: Write,
    once: impl Fn(usize) -> F + Clone + Send + Sync + 'static,
) -> Result<usize>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    // Connections are opened, statements prepared, before the clock runs.
    warm_up(write.writers, &once).await?;
    let (begun, mut writers) = (Instant::now(), JoinSet::new());
    for writer in 0..write.writers as usize {
        let once = once.clone();
        writers.spawn(async move {
            let (mut spans, mut order) = (Vec::new(), writer << 32);
            while begun.elapsed() < write.round {
                let from = Instant::now();
                once(order).await?;
                spans.push(from.elapsed().as_secs_f64() * 1_000.0);
                order += 1;
            }
            anyhow::Ok(spans)
        });
    }
    let mut spans = Vec::new();
    while let Some(of_writer) = writers.join_next().await {
        spans.extend(of_writer??);
    }
    side.rate.push(spans.len() as f64 / begun.elapsed().as_secs_f64());
    side.p50.push(percentile(&spans, 0.5));
    side.p99.push(percentile(&spans, 0.99));
    Ok(spans.len())
}

async fn warm_up<F>(writers: u32, once: &(impl Fn(usize) -> F + Clone)) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut all = JoinSet::new();
    for writer in 0..writers as usize {
        let (first, second) = (once(writer), once(writer));
        all.spawn(async move {
            first.await?;
            second.await
        });
    }
    while let Some(done) = all.join_next().await {
        done??;
    }
    Ok(())
}

async fn one_of_ours(outbox: Outbox, order: usize, events: u32) -> Result<()> {
    let tx = outbox.begin().await?;
    let values = ["a customer".into(), i64::try_from(order)?.into()];
    tx.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, INSERT_ORDER, values))
        .await?;
    for _ in 0..events {
        tx.emit(OrderPlaced::new(order))?;
    }
    tx.commit().await?;
    Ok(())
}

async fn one_by_hand(pool: PgPool, order: usize, events: u32) -> Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query(INSERT_ORDER)
        .bind("a customer")
        .bind(i64::try_from(order)?)
        .execute(&mut *tx)
        .await?;
    for _ in 0..events {
        insert_event(&mut tx, &OrderPlaced::new(order)).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Writes the same in a plain SeaORM transaction.
async fn one_by_sea_orm(db: DatabaseConnection, order: usize, events: u32) -> Result<()> {
    let tx = db.begin().await?;
    let values = ["a customer".into(), i64::try_from(order)?.into()];
    tx.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, INSERT_ORDER, values))
        .await?;
    for _ in 0..events {
        let event = OrderPlaced::new(order);
        let (id, key) = (MessageId::generate(), event.order.as_str());
        let partition = i16::try_from(partition_of(Some(key), id, PARTITIONS).0)?;
        let values: [Value; 11] = [
            partition.into(),
            (*id.as_uuid()).into(),
            "bench".into(),
            "orders".into(),
            "order.placed".into(),
            1_i32.into(),
            "order".into(),
            key.into(),
            "application/json".into(),
            serde_json::to_vec(&event)?.into(),
            "{}".into(),
        ];
        let insert = Statement::from_sql_and_values(DbBackend::Postgres, INSERT_EVENT, values);
        tx.query_one_raw(insert).await?.context("an event without id")?;
    }
    tx.commit().await?;
    Ok(())
}

/// Writes one event by hand-written SQL: the same columns, the same values. Gives its partition and
/// id.
pub(crate) async fn insert_event(
    tx: &mut Transaction<'_, Postgres>,
    event: &OrderPlaced,
) -> Result<(i16, i64)> {
    let (id, key) = (MessageId::generate(), event.order.as_str());
    let partition = i16::try_from(partition_of(Some(key), id, PARTITIONS).0)?;
    let row = sqlx::query(INSERT_EVENT)
        .bind(partition)
        .bind(*id.as_uuid())
        .bind("bench")
        .bind("orders")
        .bind("order.placed")
        .bind(1_i32)
        .bind("order")
        .bind(key)
        .bind("application/json")
        .bind(serde_json::to_vec(event)?)
        .bind("{}")
        .fetch_one(&mut **tx)
        .await?;
    Ok((partition, row.get(0)))
}
