//! What survives a crash: the mail of an after-commit listener, or that of an event in the outbox.
//!
//! A child process places an order in one transaction. Two mails are to follow: one from a listener
//! in that process, one from the consumer of the event. In the second run the child is killed
//! (SIGKILL) right after COMMIT.
#![expect(clippy::print_stdout, reason = "an example speaks to its reader")]
#![expect(unreachable_pub, reason = "written as a library would be")]

mod child;
mod tables;

use outbox_sea_orm::prelude::*;
use sea_orm::{DatabaseConnection, EntityTrait, PaginatorTrait};
use std::{path::Path, time::Duration};
use tables::{OrderPlaced, mail, order};

const SOON: Duration = Duration::from_secs(10);

/// The result of one run.
struct Left {
    orders: u64,
    mails: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some((folder, killed)) = child::asked() {
        return child::place_order(&folder, killed).await;
    }
    let (kept_running, killed) = (run(false).await?, run(true).await?);

    println!("{:<26}{:<22}killed right after COMMIT", "", "the process lives on");
    let line = |what: &str, says: &dyn Fn(&Left) -> bool| {
        let word = |left: &Left| if says(left) { "yes" } else { "no" };
        println!("{what:<26}{:<22}{}", word(&kept_running), word(&killed));
    };
    line("the order is saved", &|left| left.orders == 1);
    line("mail of the listener", &|left| left.mails.iter().any(|from| from == "listener"));
    line("mail of the event", &|left| left.mails.iter().any(|from| from == "event"));
    println!(
        "\nA listener is a convenience that dies with its process. What must happen goes through the outbox."
    );
    Ok(())
}

/// Runs a child that places an order, then relays the events that it left.
async fn run(killed: bool) -> anyhow::Result<Left> {
    let folder = tempfile::tempdir()?;
    child::run(folder.path(), killed).await?;
    relay_what_is_left(&tables::open(folder.path()).await?).await?;
    read(folder.path()).await
}

/// The next process: a relay, and a consumer that sends the mail of each event.
async fn relay_what_is_left(db: &DatabaseConnection) -> anyhow::Result<()> {
    let outbox = Outbox::builder(db.clone()).source("shop").build().await?;
    let (publisher, subscriber) = Memory::channel();
    let relay = Relay::builder(&outbox).route("mails", topic("orders"), publisher).start().await?;
    let consumer = Consumer::builder("mails", &outbox)
        .on("send-mail", send_mail)
        .subscribe(subscriber)
        .start()
        .await?;
    tokio::time::timeout(SOON, consumer.stats().wait_for(|stats| stats.acked == 1)).await??;
    relay.shutdown(SOON).await?;
    consumer.shutdown(SOON).await?;
    Ok(())
}

async fn send_mail(event: OrderPlaced, cx: &HandlerContext) -> Result<(), sea_orm::DbErr> {
    mail::send(event.order_id, "event", &cx.tx).await
}

async fn read(folder: &Path) -> anyhow::Result<Left> {
    let db = tables::open(folder).await?;
    let mails = mail::Entity::find().all(&db).await?.into_iter().map(|mail| mail.sent_by).collect();
    Ok(Left { orders: order::Entity::find().count(&db).await?, mails })
}
