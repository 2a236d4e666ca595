//! A relay with nothing to do.

use crate::{
    environment::Environment,
    load::{checker::Checker, checker::CheckingPublisher, ours::MeteredOutbox},
    machine::{own_cpu, server_cpu},
};
use anyhow::Result;
use sea_orm::sqlx;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// From the start of the relay until it is idle: it owns its partitions, and its pauses have grown
/// to their longest.
const SETTLES_DOWN: Duration = Duration::from_secs(8);

/// The cost of an idle relay.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Idle {
    /// Share of one core in percent.
    pub(crate) client_cpu: f64,
    pub(crate) server_cpu: f64,
    pub(crate) statements_a_second: f64,
}

/// Measures an idle relay.
pub(crate) async fn run(span: Duration) -> Result<Idle> {
    let environment = Environment::own(4).await?;
    sqlx::raw_sql("CREATE EXTENSION pg_stat_statements").execute(&environment.pool).await?;
    let relay = MeteredOutbox::new(&environment.outbox, u64::MAX)
        .start(CheckingPublisher(Checker::new(0)))
        .await?;
    sleep(SETTLES_DOWN).await;
    let postmaster = environment.postmaster().await?;
    let (begun, statements) = (Instant::now(), statements(&environment).await?);
    let (client, server) = (own_cpu()?, server_cpu(postmaster)?);
    sleep(span).await;
    let seconds = begun.elapsed().as_secs_f64();
    let (client, server) = (own_cpu()? - client, server_cpu(postmaster)? - server);
    let statements = self::statements(&environment).await? - statements;
    relay.shutdown(Duration::from_secs(10)).await?;
    Ok(Idle {
        client_cpu: client / seconds * 100.0,
        server_cpu: server / seconds * 100.0,
        statements_a_second: statements / seconds,
    })
}

/// The number of statements so far, without those of this query.
async fn statements(environment: &Environment) -> Result<f64> {
    let count = "SELECT sum(calls)::float8 FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%' \
                 AND query NOT LIKE '%pg_backend_pid%'";
    environment.number(count).await
}
