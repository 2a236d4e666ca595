//! Sagas with remote steps: steps a second over a transport, beside the same hand-written
//! transactions.
//!
//! A step is three transactions in two databases, those of the saga's service and of the
//! participant. The saga's service locks the saga's row and writes progress, log and command; the
//! participant writes inbox, barrier, effect and reply; the saga's service writes inbox, progress
//! and log. Commands and replies are deleted when they are delivered.

mod baseline;
mod ours;

use super::drain::per_second;
use crate::{
    args::Sides,
    environment::Environment,
    figures::Rounds,
    load::{
        fill::{PAYLOAD, key},
        rabbit,
    },
};
use anyhow::{Result, ensure};
use outbox_sea_orm::prelude::*;
use sea_orm::sqlx;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Steps of a saga, by name.
const STEPS: [&str; 3] = ["reserve", "charge", "send"];
/// Sagas that run before the clock starts: connections are opened, statements prepared, partitions
/// owned.
const WARM_UP: u32 = 60;
/// How long a round may take.
const TIME_LIMIT: Duration = Duration::from_secs(180);
/// Connections of a service's pool. Our services open a second one of that size for handlers and
/// steps, and the server takes 100 in all.
const CONNECTIONS: u32 = 20;
/// The reply topic.
const REPLIES: &str = "replies";
/// Records of a saga's log: its start, two of each step, its end.
const RECORDS: u32 = 2 + 2 * STEPS.len() as u32;

/// The load of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) sagas: u32,
    /// Sagas, commands and replies in work at once, so many of each; the baseline has three times
    /// as many sagas.
    pub(crate) at_once: usize,
    pub(crate) rounds: usize,
    pub(crate) sides: Sides,
}

/// Steps a second, round by round.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) baseline: Rounds,
    /// Ours, over the in-process transport.
    pub(crate) memory: Rounds,
    /// Ours, over RabbitMQ; none where it does not answer.
    pub(crate) rabbit: Rounds,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Baseline,
    Memory,
    Rabbit,
}

/// Both services, each with a database of its own.
struct Services {
    asking: Environment,
    asked: Environment,
}

/// A saga whose steps are all remote.
#[derive(Serialize, Deserialize)]
struct Dispatch {
    number: usize,
}

/// The command of each step.
#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "work.do", topic = "work", aggregate = "order")]
struct Work {
    #[outbox(key)]
    order: String,
    number: i64,
    note: String,
}

// The timeout of replies is longer than a round may take: a repeated command would void it.
#[saga(name = "dispatch", version = 1)]
impl Dispatch {
    #[step(remote, timeout = "10m")]
    async fn reserve(&mut self, _: &StepContext) -> Result<Work, StepError> {
        Ok(Work::new(self.number)?)
    }

    #[step(remote, timeout = "10m")]
    async fn charge(&mut self, _: &StepContext) -> Result<Work, StepError> {
        Ok(Work::new(self.number)?)
    }

    #[step(remote, timeout = "10m")]
    async fn send(&mut self, _: &StepContext) -> Result<Work, StepError> {
        Ok(Work::new(self.number)?)
    }
}

impl Work {
    /// Makes an event whose JSON has the size of every payload here.
    fn new(number: usize) -> Result<Self, std::num::TryFromIntError> {
        let (order, number) = (key(number), i64::try_from(number)?);
        let frame =
            r#"{"order":"","number":,"note":""}"#.len() + order.len() + number.to_string().len();
        Ok(Self { order, number, note: "x".repeat(PAYLOAD.saturating_sub(frame)) })
    }
}

/// Writes sagas that nobody runs, each with a correlation id of its own.
pub(crate) async fn fill(environment: &Environment, sagas: u32) -> Result<()> {
    ours::start_one(&environment.outbox).await?;
    let copies = "INSERT INTO outbox_sagas (saga_id, name, version, correlation_id, state, progress, data, seq, epoch, due_at, \
         deadline_at, started_at, changed_at) SELECT gen_random_uuid(), name, version, 'order-' || g, state, progress, data, seq, \
         epoch, due_at, deadline_at, started_at, changed_at FROM outbox_sagas, generate_series(2, $1::bigint) g";
    sqlx::query(copies).bind(i64::from(sagas)).execute(&environment.pool).await?;
    Ok(())
}

/// Runs the steps by all in turn, in an order that changes from round to round.
pub(crate) async fn run(load: Load) -> Result<Asked> {
    let services = Services {
        asking: Environment::shared(CONNECTIONS).await?,
        asked: Environment::shared(CONNECTIONS).await?,
    };
    let mut order = vec![Side::Baseline, Side::Memory];
    if rabbit::answers().await {
        order.push(Side::Rabbit);
    } else {
        eprintln!("RabbitMQ does not answer: its figures are left out");
    }
    let mut asked = Asked::default();
    for _ in 0..load.rounds {
        for side in order.iter().copied() {
            if if side == Side::Baseline { load.sides.floor() } else { load.sides.ours() } {
                one(&services, load, side, &mut asked).await?;
            }
        }
        order.rotate_left(1);
    }
    Ok(asked)
}

async fn one(services: &Services, load: Load, side: Side, asked: &mut Asked) -> Result<()> {
    services.empty().await?;
    let (took, rounds) = match side {
        Side::Baseline => (baseline::carry(services, load).await?, &mut asked.baseline),
        Side::Memory => (ours::in_process(services, load).await?, &mut asked.memory),
        Side::Rabbit => (ours::by_rabbit(services, load).await?, &mut asked.rabbit),
    };
    services.check(load.sagas + WARM_UP).await?;
    let rate = per_second(steps_of(load.sagas), took);
    eprintln!("{side:?} {rate:.0}/s");
    rounds.push(rate);
    Ok(())
}

fn steps_of(sagas: u32) -> u32 {
    sagas * STEPS.len() as u32
}

/// The sagas of the warm-up and those of a round, with distinct numbers.
fn waves(load: Load) -> [(u32, usize); 2] {
    [(WARM_UP, load.sagas as usize), (load.sagas, 0)]
}

impl Services {
    async fn empty(&self) -> Result<()> {
        for environment in [&self.asking, &self.asked] {
            environment.empty().await?;
            let sagas =
                "TRUNCATE outbox_sagas, outbox_saga_log, outbox_saga_barrier, outbox_dead_letters";
            sqlx::raw_sql(sagas).execute(&environment.pool).await?;
        }
        Ok(())
    }

    /// Fails where a step did not run exactly once, or where rows are missing: the figure is void
    /// then.
    async fn check(&self, sagas: u32) -> Result<()> {
        let Self { asking, asked } = self;
        let (steps, records) = (steps_of(sagas), sagas * RECORDS);
        for (what, environment, rows, wanted) in [
            ("sagas", asking, "SELECT count(*)::float8 FROM outbox_sagas", sagas),
            (
                "completed sagas",
                asking,
                "SELECT count(*)::float8 FROM outbox_sagas WHERE state = 'completed' AND due_at IS NULL",
                sagas,
            ),
            ("records", asking, "SELECT count(*)::float8 FROM outbox_saga_log", records),
            ("answers received", asking, "SELECT count(*)::float8 FROM outbox_inbox", steps),
            ("commands left", asking, "SELECT count(*)::float8 FROM outbox_events", 0),
            (
                "letters of the asking service",
                asking,
                "SELECT count(*)::float8 FROM outbox_dead_letters",
                0,
            ),
            ("steps done", asked, "SELECT count(*)::float8 FROM orders", steps),
            (
                "different steps done",
                asked,
                "SELECT count(DISTINCT (customer, total))::float8 FROM orders",
                steps,
            ),
            ("commands noted", asked, "SELECT count(*)::float8 FROM outbox_saga_barrier", steps),
            ("commands received", asked, "SELECT count(*)::float8 FROM outbox_inbox", steps),
            ("answers left", asked, "SELECT count(*)::float8 FROM outbox_events", 0),
            (
                "letters of the asked service",
                asked,
                "SELECT count(*)::float8 FROM outbox_dead_letters",
                0,
            ),
        ] {
            let there = environment.number(rows).await?;
            ensure!(
                there.total_cmp(&f64::from(wanted)).is_eq(),
                "void: {there} {what} where {wanted} were wanted"
            );
        }
        Ok(())
    }
}
