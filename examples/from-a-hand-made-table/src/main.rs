//! A service leaves its hand-made outbox table for an outbox, without losing an event and without
//! letting one overtake another of its order.
//!
//! The table has unsent rows when the new release starts. While the old poller sends them, the release
//! saves each new event where it cannot overtake: in the old table behind an unsent row of its order,
//! else in the outbox. The process is killed on the way (SIGKILL), and the next one goes on.
#![expect(clippy::print_stdout, reason = "an example speaks to its reader")]

mod destination;
mod service;

use anyhow::{Context, ensure};
use std::{env, path::Path, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

/// Orders, and the changes of each. The old release has saved three changes of each but the last order.
const ORDERS: i64 = 4;
const CHANGES: i64 = 12;
const OLD_CHANGES: i64 = 3;
/// The delivery after which the first process is killed.
const KILLED_AFTER: i64 = 20;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(folder) = env::args().nth(1) {
        return service::run(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir()?;
    service::leave_old_rows(folder.path()).await?;
    start(folder.path(), Some(KILLED_AFTER)).await?;
    println!("killed after delivery {KILLED_AFTER} of {}", ORDERS * CHANGES);
    start(folder.path(), None).await?;

    let (rows, events) = service::waiting(folder.path()).await?;
    println!("waiting: {rows} in the old table, {events} in the outbox");
    let [by_poller, by_relay, overtaken] = destination::received(folder.path()).await?;
    ensure!(by_poller > 0 && by_relay > 0, "{by_poller} by the poller, {by_relay} by the relay");
    println!("received: {} of {}, {overtaken} overtaken", by_poller + by_relay, ORDERS * CHANGES);
    Ok(())
}

/// Runs the new release as a process, to its end or until so many deliveries are made.
async fn start(folder: &Path, killed_after: Option<i64>) -> anyhow::Result<()> {
    let mut command = Command::new(env::current_exe()?);
    let mut child = command.arg(folder).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    // It prints a line for each delivery.
    let mut lines = BufReader::new(child.stdout.take().context("the output is piped")?).lines();
    let mut deliveries = 0;
    while lines.next_line().await?.is_some() {
        deliveries += 1;
        if killed_after == Some(deliveries) {
            return Ok(child.kill().await?);
        }
    }
    let status = child.wait().await?;
    ensure!(status.success() && killed_after.is_none(), "ended by itself: {status}");
    Ok(())
}
