//! Draining waiting events: events a second, in order for each key.

use crate::{
    args::Sides,
    environment::Environment,
    figures::Rounds,
    load::{
        checker::{Checker, Faults},
        fill::fill,
        floor, ours,
    },
};
use anyhow::{Result, bail};
use sea_orm::sqlx::{self, Connection, PgConnection};
use std::time::Duration;

/// The load of a drain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    pub(crate) events: u32,
    pub(crate) rounds: usize,
    /// Whether another transaction holds a snapshot, so that vacuum cannot remove deleted rows.
    pub(crate) pinned: bool,
    pub(crate) sides: Sides,
}

/// Events a second, round by round.
#[derive(Debug, Default)]
pub(crate) struct Drained {
    pub(crate) ours: Rounds,
    pub(crate) floor: Rounds,
    pub(crate) duplicated: u64,
}

/// Drains by ours and by the floor in turn, in an order that changes from round to round.
pub(crate) async fn run(drain: Drain) -> Result<Drained> {
    let environment = Environment::shared(4).await?;
    let mut drained = Drained::default();
    for round in 0..drain.rounds {
        for ours in [round % 2 == 0, round % 2 == 1] {
            if if ours { drain.sides.ours() } else { drain.sides.floor() } {
                one(&environment, drain, ours, &mut drained).await?;
            }
        }
    }
    Ok(drained)
}

async fn one(
    environment: &Environment,
    drain: Drain,
    is_ours: bool,
    drained: &mut Drained,
) -> Result<()> {
    fill(environment, drain.events).await?;
    let pin = if drain.pinned { Some(pin(environment.url()).await?) } else { None };
    let checker = Checker::new(drain.events);
    let (took, meter) = if is_ours {
        ours::drain(&environment.outbox, drain.events, &checker).await?
    } else {
        (floor::drain(environment.url(), &checker).await?, String::new())
    };
    if let Some(pin) = pin {
        pin.close().await?;
    }
    let faults = checker.faults();
    check(environment, faults).await?;
    let rate = per_second(drain.events, took);
    eprintln!("{} {rate:.0}/s, {faults}; {meter}", if is_ours { "ours " } else { "floor" });
    if is_ours { &mut drained.ours } else { &mut drained.floor }.push(rate);
    drained.duplicated += faults.duplicated;
    Ok(())
}

/// Fails where a drain had faults: its figure is void then.
pub(crate) async fn check(environment: &Environment, faults: Faults) -> Result<()> {
    let left = environment.number("SELECT count(*)::float8 FROM outbox_events").await?;
    if faults.void() || left > 0.0 {
        bail!("the drain is void: {faults}, {left} left in the table");
    }
    Ok(())
}

/// Opens a transaction with a snapshot, and keeps it open.
async fn pin(url: &str) -> Result<PgConnection> {
    let mut connection = PgConnection::connect(url).await?;
    let pin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox_meta";
    sqlx::raw_sql(pin).execute(&mut connection).await?;
    Ok(connection)
}

pub(crate) fn per_second(events: u32, took: Duration) -> f64 {
    f64::from(events) / took.as_secs_f64()
}
