//! One fault, three guarantees.
//!
//! Every order is to be paid. The payment is booked, and then the response is lost, once for each
//! order. The relay cannot know whether it was booked; the guarantee of its route decides what it
//! does:
//!
//! - at most once: it does not try again. A message that was lost on the way there would stay lost.
//! - at least once: it tries again, and the payment is booked twice.
//! - effectively once: it tries again, and the inbox knows the message: one payment, whatever is lost.
#![expect(clippy::print_stdout, reason = "an example speaks to its reader")]

mod destination;

use destination::{Faults, Lossy, book, payments};
use outbox_sea_orm::prelude::*;
use sea_orm::{ConnectionTrait, Database, DatabaseConnection};
use serde::{Deserialize, Serialize};
use std::{error::Error, time::Duration};

const ORDERS: u64 = 4;
const SOON: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders")]
struct OrderPlaced {
    #[outbox(key)]
    order_id: u64,
}

/// With the inbox: the payment and the inbox row are one transaction.
async fn take_payment(event: OrderPlaced, cx: &HandlerContext) -> Result<(), HandlerError> {
    book("effectively once", event.order_id, &cx.tx).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let db =
        Database::connect(format!("sqlite://{}/shop.db?mode=rwc", folder.path().display())).await?;
    db.execute_unprepared(
        "CREATE TABLE payments (guarantee TEXT NOT NULL, order_id INTEGER NOT NULL)",
    )
    .await?;
    let outbox = Outbox::builder(db.clone()).source("shop").install().await?;

    let (inbox, subscriber) = Memory::channel();
    let consumer = Consumer::builder("payments", &outbox)
        .on("take-payment", take_payment)
        .subscribe(subscriber);
    let consumer = consumer.start().await?;
    let retry = RetryPolicy::default().backoff(Duration::from_millis(20));
    let route = |name, lossy: Lossy| Route::new(name, topic("orders"), lossy).retry(retry);
    let faults = Faults::default();
    let relay = Relay::builder(&outbox)
        .add_route(
            route("at-most-once", Lossy::booking("at most once", &db, &faults)).at_most_once(),
        )
        .add_route(route("at-least-once", Lossy::booking("at least once", &db, &faults)))
        .add_route(route("effectively-once", Lossy::passing_on(inbox, &faults)))
        .start()
        .await?;

    let tx = outbox.begin().await?;
    for order_id in 1..=ORDERS {
        tx.emit(OrderPlaced { order_id })?;
    }
    tx.commit().await?;

    // Each order is confirmed by the two routes that try again, and given up by the one that does not.
    let over = |stats: &outbox_sea_orm::relay::RelayStats| {
        stats.delivered == 2 * ORDERS && stats.dead == ORDERS
    };
    tokio::time::timeout(SOON, relay.stats().wait_for(over)).await??;
    relay.shutdown(SOON).await?;
    consumer.shutdown(SOON).await?;
    print_table(&db, &faults).await
}

async fn print_table(db: &DatabaseConnection, faults: &Faults) -> Result<(), Box<dyn Error>> {
    println!("{ORDERS} orders; of each the answer to its first payment is lost\n");
    println!("{:<20}{:>8}{:>16}{:>12}", "route", "sent", "answers lost", "payments");
    for guarantee in ["at most once", "at least once", "effectively once"] {
        let (sent, lost) = faults.of(guarantee);
        println!("{guarantee:<20}{sent:>8}{lost:>16}{:>12}", payments(db, guarantee).await?);
    }
    println!(
        "\nAt most once never repeats, and would lose what is lost on the way there; its failures are dead letters."
    );
    println!(
        "At least once loses nothing and repeats. With an inbox what is repeated has no second effect."
    );
    Ok(())
}
