//! The cost of a drain, on a server without other load.

use crate::{
    args::Sides,
    environment::Environment,
    load::{checker::Checker, fill::fill, floor, ours},
    machine::{own_cpu, server_cpu},
    stages::drain::check,
};
use anyhow::Result;
use std::fmt;

/// The cost of one drain.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Bytes of WAL an event.
    pub(crate) wal: f64,
    /// Dead row versions an event.
    pub(crate) dead: f64,
    /// UPDATEs of event rows, all together.
    pub(crate) updates: f64,
    /// CPU seconds for a million events.
    pub(crate) client_cpu: f64,
    pub(crate) server_cpu: f64,
}

/// Both sides, and the cost of writing the events.
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
    let environment = Environment::own(4).await?;
    let mut costs = Costs::default();
    // The first drain has a cold server.
    one(&environment, events.min(50_000), false).await?;
    if sides.floor() {
        (costs.floor, costs.fill_wal) = one(&environment, events, false).await?;
    }
    if sides.ours() {
        (costs.ours, costs.fill_wal) = one(&environment, events, true).await?;
    }
    Ok(costs)
}

async fn one(environment: &Environment, events: u32, is_ours: bool) -> Result<(Cost, f64)> {
    let n = f64::from(events);
    let before_fill = environment.wal().await?;
    fill(environment, events).await?;
    let checker = Checker::new(events);
    let postmaster = environment.postmaster().await?;
    let (updates, deletes) = changes(environment).await?;
    let (wal, client, server) = (environment.wal().await?, own_cpu()?, server_cpu(postmaster)?);
    if is_ours {
        ours::drain(&environment.outbox, events, &checker).await?;
    } else {
        floor::drain(environment.url(), &checker).await?;
    }
    let client_cpu = (own_cpu()? - client) / n * 1e6;
    let server_cpu = (server_cpu(postmaster)? - server) / n * 1e6;
    let fill_wal = (wal - before_fill) / n;
    let wal = (environment.wal().await? - wal) / n;
    // Sessions report their counts when they end, at the latest.
    let (updates, deletes) =
        (changes(environment).await?.0 - updates, changes(environment).await?.1 - deletes);
    check(environment, checker.faults()).await?;
    Ok((Cost { wal, dead: (updates + deletes) / n, updates, client_cpu, server_cpu }, fill_wal))
}

async fn changes(environment: &Environment) -> Result<(f64, f64)> {
    let updates =
        "SELECT n_tup_upd::float8 FROM pg_stat_user_tables WHERE relname = 'outbox_events'";
    let deletes =
        "SELECT n_tup_del::float8 FROM pg_stat_user_tables WHERE relname = 'outbox_events'";
    Ok((environment.number(updates).await?, environment.number(deletes).await?))
}
