//! The process that places the order: this program, with other arguments.

use crate::tables::{self, OrderPlaced, mail, order};
use anyhow::{Context, ensure};
use outbox_sea_orm::prelude::*;
use sea_orm::{ActiveModelTrait, ActiveValue::Set};
use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

const PLACE: &str = "--place-order-in";
const KILLED: &str = "--to-be-killed";
/// The output of the child after COMMIT.
const COMMITTED: &str = "committed";

/// Tells whether this process is the child, where its database is, and whether it will be killed.
pub fn asked() -> Option<(PathBuf, bool)> {
    let arguments: Vec<String> = env::args().collect();
    match arguments.get(1..)? {
        [place, folder, rest @ ..] if place == PLACE => {
            Some((folder.into(), rest.iter().any(|word| word == KILLED)))
        }
        _ => None,
    }
}

/// Places an order: the row and the event in one transaction, and a listener that sends a mail after it.
pub async fn place_order(folder: &Path, killed: bool) -> anyhow::Result<()> {
    let db = tables::open(folder).await?;
    let mails = db.clone();
    let send_mail = move |event: OrderPlaced| {
        let mails = mails.clone();
        async move { mail::send(event.order_id, "listener", &mails).await }
    };
    let outbox =
        Outbox::builder(db).source("shop").listen(Phase::AfterCommit, send_mail).install().await?;

    let tx = outbox.begin().await?;
    let order = order::ActiveModel { total: Set(4200), ..Default::default() }.insert(&tx).await?;
    tx.emit(OrderPlaced { order_id: order.id })?;
    if killed {
        // Hooks run before listeners: here the transaction is committed and no mail is sent. The
        // process goes no further.
        tx.after_commit(|| {
            println!("{COMMITTED}");
            loop {
                std::thread::park();
            }
        });
    }
    tx.commit().await?;
    Ok(())
}

/// Runs the child; one that is to be killed gets SIGKILL as soon as it has committed.
pub async fn run(folder: &Path, killed: bool) -> anyhow::Result<()> {
    let mut command = Command::new(env::current_exe()?);
    command
        .arg(PLACE)
        .arg(folder)
        .args(killed.then_some(KILLED))
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    if !killed {
        let status = child.wait().await?;
        ensure!(status.success(), "the child failed: {status}");
        return Ok(());
    }
    let output = child.stdout.take().context("the child's output is piped")?;
    let line = BufReader::new(output).lines().next_line().await?;
    ensure!(line.as_deref() == Some(COMMITTED), "the child did not commit");
    child.kill().await?;
    Ok(())
}
