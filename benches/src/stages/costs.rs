//! What a drain costs, on a server that does nothing else.

use crate::{
    args::Sides,
    load::{checker::Checker, fill::fill, floor, ours},
    machine::{own_cpu, server_cpu},
    place::Place,
    stages::drain::check,
};
use anyhow::Result;
use std::fmt;

/// What one drain cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Bytes of WAL an event.
    pub(crate) wal: f64,
    /// Versions of rows an event left dead.
    pub(crate) dead: f64,
    /// UPDATEs of event rows, all together.
    pub(crate) updates: f64,
    /// CPU seconds for a million events.
    pub(crate) client_cpu: f64,
    pub(crate) server_cpu: f64,
}

/// Both sides, and what the events cost when they were written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Costs {
    pub(crate) ours: Cost,
    pub(crate) floor: Cost,
    pub(crate) fill_wal: f64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wal, dead, updates, client_cpu, server_cpu } = self;
        write!(
            f,
            "{wal:.0} B of WAL and {dead:.2} dead rows an event, {updates} updates, {client_cpu:.1} s of our CPU and \
             {server_cpu:.1} s of the server's for a million"
        )
    }
}

/// Drains once each.
pub(crate) async fn run(events: u32, sides: Sides) -> Result<Costs> {
    let place = Place::own(4).await?;
    let mut costs = Costs::default();
    // The first drain meets a cold server.
    one(&place, events.min(50_000), false).await?;
    if sides.floor() {
        (costs.floor, costs.fill_wal) = one(&place, events, false).await?;
    }
    if sides.ours() {
        (costs.ours, costs.fill_wal) = one(&place, events, true).await?;
    }
    Ok(costs)
}

async fn one(place: &Place, events: u32, is_ours: bool) -> Result<(Cost, f64)> {
    let n = f64::from(events);
    let before_fill = place.wal().await?;
    fill(place, events).await?;
    let checker = Checker::new(events);
    let postmaster = place.postmaster().await?;
    let (updates, deletes) = changes(place).await?;
    let (wal, client, server) = (place.wal().await?, own_cpu()?, server_cpu(postmaster)?);
    if is_ours {
        ours::drain(&place.outbox, events, &checker).await?;
    } else {
        floor::drain(place.url(), &checker).await?;
    }
    let client_cpu = (own_cpu()? - client) / n * 1e6;
    let server_cpu = (server_cpu(postmaster)? - server) / n * 1e6;
    let fill_wal = (wal - before_fill) / n;
    let wal = (place.wal().await? - wal) / n;
    // Sessions tell their counts when they end, at the latest.
    let (updates, deletes) = (changes(place).await?.0 - updates, changes(place).await?.1 - deletes);
    check(place, checker.faults()).await?;
    Ok((Cost { wal, dead: (updates + deletes) / n, updates, client_cpu, server_cpu }, fill_wal))
}

async fn changes(place: &Place) -> Result<(f64, f64)> {
    let updates =
        "SELECT n_tup_upd::float8 FROM pg_stat_user_tables WHERE relname = 'outbox_events'";
    let deletes =
        "SELECT n_tup_del::float8 FROM pg_stat_user_tables WHERE relname = 'outbox_events'";
    Ok((place.number(updates).await?, place.number(deletes).await?))
}
