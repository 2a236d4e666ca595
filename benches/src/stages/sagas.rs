//! Sagas: steps a second beside the same hand-written transactions, and sagas a second while many
//! others are in flight.

use crate::{
    args::Sides,
    environment::Environment,
    figures::Rounds,
    stages::write::{INSERT_ORDER, OrderPlaced, insert_event},
};
use anyhow::{Context, Result, ensure};
use outbox_sea_orm::{
    prelude::*,
    saga::{SagaData, SagasStats},
};
use sea_orm::{
    ConnectionTrait, DbBackend, Statement,
    sqlx::{self, PgPool, Row, types::Uuid},
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet, time::timeout};

/// Steps of a saga.
const STEPS: u32 = 3;
/// Sagas that run before the clock starts: connections are opened, statements prepared.
const WARM_UP: u32 = 30;
/// How long a round may take.
const TIME_LIMIT: Duration = Duration::from_secs(180);
/// Sagas that are started in one transaction.
const STARTED_AT_ONCE: u32 = 500;

/// The load of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) sagas: u32,
    /// Sagas that run at once, on either side.
    pub(crate) at_once: usize,
    pub(crate) rounds: usize,
    pub(crate) sides: Sides,
}

/// Steps a second.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    pub(crate) ours: Rounds,
    pub(crate) baseline: Rounds,
}

/// Sagas a second.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// While one other saga is in flight.
    pub(crate) one: Rounds,
    /// While many others are in flight.
    pub(crate) many: Rounds,
}

/// A saga whose steps do the work of one transaction of the other benchmarks: an order, and an
/// event.
#[derive(Serialize, Deserialize)]
struct Ship {
    number: usize,
}

#[saga(name = "ship", version = 1)]
impl Ship {
    #[step]
    async fn reserve(&mut self, cx: &StepContext) -> Result<(), StepError> {
        self.order(cx).await
    }

    #[step]
    async fn charge(&mut self, cx: &StepContext) -> Result<(), StepError> {
        self.order(cx).await
    }

    #[step]
    async fn send(&mut self, cx: &StepContext) -> Result<(), StepError> {
        self.order(cx).await
    }
}

impl Ship {
    async fn order(&self, cx: &StepContext) -> Result<(), StepError> {
        let values = ["a customer".into(), i64::try_from(self.number)?.into()];
        cx.tx
            .execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, INSERT_ORDER, values))
            .await?;
        cx.tx.emit(OrderPlaced::new(self.number))?;
        Ok(())
    }
}

/// A saga that is completed, or in flight until the benchmark has ended: the retry of its second
/// step is due in days.
#[derive(Serialize, Deserialize)]
struct Wait {
    ends: bool,
}

#[saga(name = "wait", version = 1)]
impl Wait {
    #[step]
    async fn begin(&mut self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    #[step(retry(max_attempts = 100, backoff = "7d", max_backoff = "7d"))]
    async fn go_on(&mut self, _: &StepContext) -> Result<(), StepError> {
        if self.ends { Ok(()) } else { Err(StepError::retry("not today")) }
    }
}

/// Runs sagas by our coordinator and by the baseline in turn.
pub(crate) async fn steps(environment: &Environment, load: Load) -> Result<Steps> {
    let mut steps = Steps::default();
    for round in 0..load.rounds {
        for ours in [round % 2 == 0, round % 2 == 1] {
            if !(if ours { load.sides.ours() } else { load.sides.floor() }) {
                continue;
            }
            empty(environment).await?;
            let took = if ours {
                by_us(environment, load).await?
            } else {
                baseline(environment, load).await?
            };
            check(environment, load.sagas + WARM_UP).await?;
            let side = if ours { &mut steps.ours } else { &mut steps.baseline };
            side.push(f64::from(load.sagas * STEPS) / took.as_secs_f64());
        }
    }
    Ok(steps)
}

/// Runs sagas in turn beside one saga in flight and beside many. The tables have the same size: the
/// other sagas are completed where they are not in flight.
pub(crate) async fn in_flight(many: u32, load: Load) -> Result<InFlight> {
    // Each opens as many again for the steps, and the server takes 100 in all.
    let places = [Environment::shared(20).await?, Environment::shared(20).await?];
    for (environment, in_flight) in places.iter().zip([1, many]) {
        let sagas = coordinator(&environment.outbox, load.at_once).await?;
        let mut stats = sagas.stats();
        start(&environment.outbox, &sagas, many, |number| Wait {
            ends: number >= in_flight as usize,
        })
        .await?;
        seen(&mut stats, |stats| stats.waited + stats.idle >= u64::from(many)).await?;
        sagas.shutdown(TIME_LIMIT).await?;
        let waiting = environment
            .number("SELECT count(*)::float8 FROM outbox_sagas WHERE state = 'running'")
            .await?;
        ensure!(waiting.total_cmp(&f64::from(in_flight)).is_eq(), "{waiting} sagas are in flight");
        sqlx::raw_sql("VACUUM (ANALYZE)").execute(&environment.pool).await?;
    }
    let mut flown = InFlight::default();
    for round in 0..load.rounds {
        for many in [round % 2 == 0, round % 2 == 1] {
            let took = by_us(&places[usize::from(many)], load).await?;
            let side = if many { &mut flown.many } else { &mut flown.one };
            side.push(f64::from(load.sagas) / took.as_secs_f64());
        }
    }
    for environment in &places {
        check(environment, (load.sagas + WARM_UP) * u32::try_from(load.rounds)?).await?;
    }
    Ok(flown)
}

async fn coordinator(outbox: &Outbox, at_once: usize) -> Result<Sagas> {
    let sagas =
        Sagas::builder(outbox).register(Ship::saga()).register(Wait::saga()).concurrency(at_once);
    Ok(sagas.start().await?)
}

/// Starts sagas; their numbers begin with 0.
pub(super) async fn start<D: Serialize + Send + 'static>(
    outbox: &Outbox,
    sagas: &Sagas,
    count: u32,
    data: impl Fn(usize) -> D,
) -> Result<()> {
    for first in (0..count).step_by(STARTED_AT_ONCE as usize) {
        let tx = outbox.begin().await?;
        for number in first..count.min(first + STARTED_AT_ONCE) {
            sagas.start(&tx, data(number as usize)).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

/// Waits until a coordinator has reached a number.
async fn seen(
    stats: &mut watch::Receiver<SagasStats>,
    done: impl FnMut(&SagasStats) -> bool,
) -> Result<()> {
    timeout(TIME_LIMIT, stats.wait_for(done)).await.context("the sagas stand still")??;
    Ok(())
}

/// Runs existing sagas by a coordinator with its defaults; the time runs from its start.
async fn by_us(environment: &Environment, load: Load) -> Result<Duration> {
    let starter = coordinator(&environment.outbox, load.at_once).await?;
    let mut stats = starter.stats();
    start(&environment.outbox, &starter, WARM_UP, |number| Ship { number }).await?;
    seen(&mut stats, |stats| stats.idle >= u64::from(WARM_UP)).await?;
    starter.shutdown(TIME_LIMIT).await?;
    start(&environment.outbox, &starter, load.sagas, |number| Ship { number }).await?;
    let begun = Instant::now();
    let sagas = coordinator(&environment.outbox, load.at_once).await?;
    seen(&mut sagas.stats(), |stats| stats.idle >= u64::from(load.sagas)).await?;
    let took = begun.elapsed();
    sagas.shutdown(TIME_LIMIT).await?;
    Ok(took)
}

/// Runs existing sagas by hand-written transactions, without the framework.
async fn baseline(environment: &Environment, load: Load) -> Result<Duration> {
    let starter = coordinator(&environment.outbox, load.at_once).await?;
    starter.shutdown(TIME_LIMIT).await?;
    let mut took = Duration::ZERO;
    for count in [WARM_UP, load.sagas] {
        start(&environment.outbox, &starter, count, |number| Ship { number }).await?;
        let begun = Instant::now();
        // The baseline knows its number of sagas and queries once, where the coordinator claims in
        // batches.
        let due = sqlx::query(
            "SELECT saga_id FROM outbox_sagas WHERE due_at IS NOT NULL ORDER BY due_at",
        );
        let due: Arc<[Uuid]> =
            due.fetch_all(&environment.pool).await?.iter().map(|row| row.get(0)).collect();
        ensure!(due.len() == count as usize, "{} sagas are due", due.len());
        let (next, mut hands) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        for _ in 0..load.at_once {
            let (pool, due, next) = (environment.pool.clone(), Arc::clone(&due), Arc::clone(&next));
            hands.spawn(async move {
                while let Some(saga) = due.get(next.fetch_add(1, Relaxed)) {
                    for step in ["reserve", "charge", "send"] {
                        one_step(&pool, *saga, step).await?;
                    }
                }
                anyhow::Ok(())
            });
        }
        while let Some(hand) = hands.join_next().await {
            hand??;
        }
        took = begun.elapsed();
    }
    Ok(took)
}

/// Runs one transaction: it locks and reads the saga's row, runs the step, and writes row, log and
/// event.
async fn one_step(pool: &PgPool, saga: Uuid, step: &str) -> Result<()> {
    let mut tx = pool.begin().await?;
    let row =
        sqlx::query("SELECT progress, data, seq FROM outbox_sagas WHERE saga_id = $1 FOR UPDATE")
            .bind(saga)
            .fetch_one(&mut *tx)
            .await?;
    let (progress, data, seq): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
    let ship: Ship = serde_json::from_str(&data)?;
    let mut progress: serde_json::Value = serde_json::from_str(&progress)?;
    if let Some(steps) = progress.get_mut("steps").and_then(|steps| steps.as_array_mut()) {
        steps.push(
            serde_json::json!({ "step": step, "state": "done", "output": null, "failures": 0 }),
        );
    }
    sqlx::query(INSERT_ORDER)
        .bind("a customer")
        .bind(i64::try_from(ship.number)?)
        .execute(&mut *tx)
        .await?;
    insert_event(&mut tx, &OrderPlaced::new(ship.number)).await?;
    let body = serde_json::json!({ "done": { "step": step, "output": null, "data": ship, "pivot": false, "attempt": 1 } });
    let log = "INSERT INTO outbox_saga_log (saga_id, seq, kind, step, body, at_us) VALUES ($1, $2, $3, $4, $5, \
               (extract(epoch FROM statement_timestamp()) * 1000000)::bigint)";
    sqlx::query(log)
        .bind(saga)
        .bind(seq + 1)
        .bind("done")
        .bind(step)
        .bind(body.to_string())
        .execute(&mut *tx)
        .await?;
    let is_last = step == "send";
    if is_last {
        let body = r#""completed""#;
        let kind = "completed";
        sqlx::query(log)
            .bind(saga)
            .bind(seq + 2)
            .bind(kind)
            .bind(None::<&str>)
            .bind(body)
            .execute(&mut *tx)
            .await?;
    }
    let now = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint";
    let update = if is_last {
        format!(
            "UPDATE outbox_sagas SET state = 'completed', progress = $1, data = $2, seq = $3, changed_at = {now}, \
             due_at = NULL, ended_at = {now} WHERE saga_id = $4"
        )
    } else {
        format!(
            "UPDATE outbox_sagas SET progress = $1, data = $2, seq = $3, changed_at = {now} WHERE saga_id = $4"
        )
    };
    sqlx::query(sqlx::AssertSqlSafe(update))
        .bind(progress.to_string())
        .bind(serde_json::to_string(&ship)?)
        .bind(seq + 1 + i64::from(is_last))
        .bind(saga)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}

async fn empty(environment: &Environment) -> Result<()> {
    environment.empty().await?;
    sqlx::raw_sql("TRUNCATE outbox_sagas, outbox_saga_log").execute(&environment.pool).await?;
    Ok(())
}

/// Fails where a step of a saga did not run exactly once: the figure is void then.
async fn check(environment: &Environment, sagas: u32) -> Result<()> {
    let completed =
        "SELECT count(*)::float8 FROM outbox_sagas WHERE state = 'completed' AND name = 'ship'";
    let completed = environment.number(completed).await?;
    let orders = environment.number("SELECT count(*)::float8 FROM orders").await?;
    let events = environment.number("SELECT count(*)::float8 FROM outbox_events").await?;
    let (sagas, steps) = (f64::from(sagas), f64::from(sagas * STEPS));
    let as_wanted = (completed, orders, events) == (sagas, steps, steps);
    ensure!(
        as_wanted,
        "{completed} sagas, {orders} orders, {events} events where {sagas} and {steps} were wanted"
    );
    Ok(())
}
