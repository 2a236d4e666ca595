//! `bench`: a first figure of a database, by tables of its own.
//!
//! The outbox of the user is not touched: events in it could be published by a relay that takes all
//! topics, or become dead letters. The tables have a prefix of their own, which no relay reads, and
//! are dropped at the end.

mod stages;

use super::act::confirm;
use crate::{
    args::{Bench, Global},
    config::{self, Target},
    database,
    error::CliError,
    output::{Answer, Output, report, shown, warn},
    signals::Signals,
};
use outbox_sea_orm::{Namespace, Outbox, OutboxMigration};
use sea_orm::DatabaseConnection;
use sea_orm_migration::SchemaManager;
use serde::Serialize;
use stages::{Load, measure};
use std::process::ExitCode;

/// Prefix of the tables.
const NAMESPACE: &str = "outbox_bench";
/// Partitions of the tables, as many as an outbox has unless told otherwise.
const PARTITIONS: u16 = 16;
/// Bytes of all events: a measurement fills no disk.
const MOST_BYTES: u64 = 256 * 1024 * 1024;
/// Connections besides those of the writers.
const CONNECTIONS: u32 = 4;

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    events: u32,
    bytes: u32,
    writers: u32,
    /// Transactions with one event, until all were committed or the time was over.
    written: u64,
    writes_per_second: f64,
    write_p50_ms: f64,
    write_p99_ms: f64,
    /// Events that a relay has read, handed to a publisher that does nothing, and deleted.
    drained: u64,
    drained_per_second: f64,
    /// Events one at a time, from before the transaction to the publisher.
    delivered: u64,
    delivery_p50_ms: f64,
    delivery_p99_ms: f64,
}

/// Measures one database.
pub(super) async fn bench(
    global: &Global,
    bench: &Bench,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    if u64::from(bench.events) * u64::from(bench.bytes) > MOST_BYTES {
        let most = MOST_BYTES / 1024 / 1024;
        return Err(CliError::Usage(format!("events times bytes is more than {most} MiB")));
    }
    let target = config::target(global)?;
    if target.production {
        let what = format!(
            "create tables {NAMESPACE}_*, write {} events there as fast as it goes, and drop them?",
            bench.events
        );
        confirm(global, &target, &what)?;
    }
    let mut signals = Signals::new()?;
    let db = database::connect_with(&target, bench.writers + CONNECTIONS).await?;
    let outbox = tables(&target, &db, bench.replace).await?;
    let load = Load { events: bench.events, bytes: bench.bytes, writers: bench.writers };
    let measured = measure(&outbox, &load, bench.limit, &mut signals).await;
    // However it ended, but for a kill.
    let dropped = drop_tables(&target, &db).await;
    if dropped.is_err() {
        warn(&format!("the tables {NAMESPACE}_* are left: the next measurement needs --replace"));
    }
    let figures = match measured {
        Ok(figures) => figures,
        Err(error) => {
            dropped.unwrap_or_else(|left| report(&left));
            return Err(CliError::Bench(error));
        }
    };
    match &figures {
        None => {}
        Some(figures) if output.json => {
            output.document(&Answer { database: &target.name, result: figures })?;
        }
        Some(figures) => write(output, &target, figures)?,
    }
    dropped?;
    if figures.is_none() {
        let cancelled = "cancelled; the tables are dropped";
        if output.json {
            warn(cancelled);
        } else {
            output.line(cancelled)?;
        }
        return Ok(ExitCode::from(5));
    }
    Ok(ExitCode::SUCCESS)
}

fn namespace() -> Result<Namespace, CliError> {
    Namespace::new(NAMESPACE).map_err(|error| CliError::Usage(error.to_string()))
}

/// Makes the tables. Those that are there belong to a measurement that runs, or to one that was
/// killed.
async fn tables(
    target: &Target,
    db: &DatabaseConnection,
    replace: bool,
) -> Result<Outbox, CliError> {
    let builder = || Outbox::builder(db.clone()).namespace(NAMESPACE).source("/outbox-bench");
    if builder().build().await.is_ok() {
        if !replace {
            return Err(CliError::Usage(format!(
                "the tables {NAMESPACE}_* are there: another measurement runs, or was killed; \
                 --replace drops them first"
            )));
        }
        drop_tables(target, db).await?;
    }
    let outbox = builder().partitions(PARTITIONS).install().await;
    outbox.map_err(|error| database::open_error(target, error))
}

async fn drop_tables(target: &Target, db: &DatabaseConnection) -> Result<(), CliError> {
    let manager = SchemaManager::new(db);
    for migration in OutboxMigration::all(namespace()?, PARTITIONS).iter().rev() {
        let dropped = migration.down(&manager).await;
        dropped.map_err(|error| database::open_error(target, error))?;
    }
    Ok(())
}

fn write(output: &mut Output, target: &Target, figures: &Figures) -> Result<(), CliError> {
    let Figures { events, bytes, writers, .. } = figures;
    output.line(format!(
        "{}: {events} events of {bytes} bytes, {writers} writers",
        shown(&target.to_string())
    ))?;
    output.line(format!(
        "write       {:.0} transactions/s, half within {:.1} ms, 99 % within {:.1} ms",
        figures.writes_per_second, figures.write_p50_ms, figures.write_p99_ms
    ))?;
    output.line(format!(
        "drain       {:.0} events/s, to a publisher that does nothing",
        figures.drained_per_second
    ))?;
    output.line(format!(
        "end to end  half within {:.1} ms, 99 % within {:.1} ms, of {} events one at a time",
        figures.delivery_p50_ms, figures.delivery_p99_ms, figures.delivered
    ))?;
    for (done, of, what) in [
        (figures.written, u64::from(*events), "were written"),
        (figures.drained, figures.written, "were drained"),
    ] {
        if done < of {
            output.line(format!("  {done} of {of} {what} until the time was over"))?;
        }
    }
    output.line("a first figure: one process, and whatever else the database does meanwhile")
}
