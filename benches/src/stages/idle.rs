//! A relay with nothing to do.

use crate::{
    load::{checker::Checker, checker::Looks, ours::Watched},
    machine::{own_cpu, server_cpu},
    place::Place,
};
use anyhow::Result;
use sea_orm::sqlx;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// From the start of the relay until it is idle: partitions are owned, pauses have grown to their longest.
const SETTLES_DOWN: Duration = Duration::from_secs(8);

/// What it costs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Idle {
    /// Share of one core in percent.
    pub(crate) client_cpu: f64,
    pub(crate) server_cpu: f64,
    pub(crate) statements_a_second: f64,
}

/// Watches an idle relay.
pub(crate) async fn run(span: Duration) -> Result<Idle> {
    let place = Place::own(4).await?;
    sqlx::raw_sql("CREATE EXTENSION pg_stat_statements").execute(&place.pool).await?;
    let relay = Watched::new(&place.outbox, u64::MAX).start(Looks(Checker::new(0))).await?;
    sleep(SETTLES_DOWN).await;
    let postmaster = place.postmaster().await?;
    let (begun, statements) = (Instant::now(), statements(&place).await?);
    let (client, server) = (own_cpu()?, server_cpu(postmaster)?);
    sleep(span).await;
    let seconds = begun.elapsed().as_secs_f64();
    let (client, server) = (own_cpu()? - client, server_cpu(postmaster)? - server);
    let statements = self::statements(&place).await? - statements;
    relay.shutdown(Duration::from_secs(10)).await?;
    Ok(Idle {
        client_cpu: client / seconds * 100.0,
        server_cpu: server / seconds * 100.0,
        statements_a_second: statements / seconds,
    })
}

/// Statements so far, but those that ask for this.
async fn statements(place: &Place) -> Result<f64> {
    let count = "SELECT sum(calls)::float8 FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%' \
                 AND query NOT LIKE '%pg_backend_pid%'";
    place.number(count).await
}
