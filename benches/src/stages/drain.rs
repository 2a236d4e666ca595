//! Draining what waits: events a second, in order for each key.

use crate::{
    args::Sides,
    figures::Rounds,
    load::{
        checker::{Checker, Faults},
        fill::fill,
        floor, ours,
    },
    place::Place,
};
use anyhow::{Result, bail};
use sea_orm::sqlx::{self, Connection, PgConnection};
use std::time::Duration;

/// What is drained, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    pub(crate) events: u32,
    pub(crate) rounds: usize,
    /// Whether a transaction with a snapshot is open elsewhere, so that nothing that is deleted can be cleaned up.
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

/// Drains, ours and the floor in turn; which of them begins changes from round to round.
pub(crate) async fn run(drain: Drain) -> Result<Drained> {
    let place = Place::shared(4).await?;
    let mut drained = Drained::default();
    for round in 0..drain.rounds {
        for ours in [round % 2 == 0, round % 2 == 1] {
            if if ours { drain.sides.ours() } else { drain.sides.floor() } {
                one(&place, drain, ours, &mut drained).await?;
            }
        }
    }
    Ok(drained)
}

async fn one(place: &Place, drain: Drain, is_ours: bool, drained: &mut Drained) -> Result<()> {
    fill(place, drain.events).await?;
    let pin = if drain.pinned { Some(pin(place.url()).await?) } else { None };
    let checker = Checker::new(drain.events);
    let (took, told) = if is_ours {
        ours::drain(&place.outbox, drain.events, &checker).await?
    } else {
        (floor::drain(place.url(), &checker).await?, String::new())
    };
    if let Some(pin) = pin {
        pin.close().await?;
    }
    let faults = checker.faults();
    check(place, faults).await?;
    let rate = per_second(drain.events, took);
    eprintln!("{} {rate:.0}/s, {faults}; {told}", if is_ours { "ours " } else { "floor" });
    if is_ours { &mut drained.ours } else { &mut drained.floor }.push(rate);
    drained.duplicated += faults.duplicated;
    Ok(())
}

/// Fails where a drain was not what it should be: its figure would count for nothing.
pub(crate) async fn check(place: &Place, faults: Faults) -> Result<()> {
    let left = place.number("SELECT count(*)::float8 FROM outbox_events").await?;
    if faults.void() || left > 0.0 {
        bail!("the drain is void: {faults}, {left} left in the table");
    }
    Ok(())
}

/// Opens a transaction that sees what is there now, and keeps it open.
async fn pin(url: &str) -> Result<PgConnection> {
    let mut connection = PgConnection::connect(url).await?;
    let pin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox_meta";
    sqlx::raw_sql(pin).execute(&mut connection).await?;
    Ok(connection)
}

pub(crate) fn per_second(events: u32, took: Duration) -> f64 {
    f64::from(events) / took.as_secs_f64()
}
