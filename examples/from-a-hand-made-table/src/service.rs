//! The service: its old table with a poller, and the outbox with a relay, side by side.

use crate::{CHANGES, OLD_CHANGES, ORDERS, destination::Destination};
use outbox_sea_orm::{admin::AdminStore, prelude::*};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, DbBackend, Statement, Value};
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};

/// What the old release does with each event.
const INSERT: &str = "INSERT INTO outbox (order_id, change) VALUES (?, ?)";
/// Rows of one poll: few enough that some are unsent for a while.
const BATCH: i64 = 5;
/// Short, so that the second process soon owns what the killed one did.
const LEASE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);
const SOON: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.changed", topic = "orders")]
pub(crate) struct OrderChanged {
    #[outbox(key)]
    pub(crate) order_id: i64,
    pub(crate) change: i64,
}

/// The new release: it runs until all changes are made and delivered.
pub(crate) async fn run(folder: &Path) -> anyhow::Result<()> {
    let (db, destination) = (open(folder).await?, Destination::open(folder).await?);
    let outbox = Outbox::builder(db.clone()).source("shop").install().await?;
    let relay = Relay::builder(&outbox).lease(LEASE);
    let relay = relay.route("orders", topic("orders"), destination.clone()).start().await?;

    for change in 1..=CHANGES {
        for order_id in 1..=ORDERS {
            change_order(&outbox, order_id, change).await?;
        }
        poll(&db, &destination).await?;
    }
    // No order is changed any more: the poller is done as soon as its table has no unsent row.
    while poll(&db, &destination).await? > 0 {}
    while outbox.stats().await?.pending > 0 {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(relay.shutdown(SOON).await?)
}

/// Makes a change of an order, unless it is made, and saves its event where none is overtaken.
async fn change_order(outbox: &Outbox, order_id: i64, change: i64) -> anyhow::Result<()> {
    let tx = outbox.begin().await?;
    // The row is locked from here on, so that changes of one order come one after the other.
    let sql = "UPDATE orders SET changes = ? WHERE id = ? AND changes < ?";
    if tx.execute_raw(statement(sql, [change, order_id, change])).await?.rows_affected() == 1 {
        let unsent = "SELECT 1 FROM outbox WHERE order_id = ? AND sent = 0 LIMIT 1";
        if tx.query_one_raw(statement(unsent, [order_id])).await?.is_some() {
            tx.execute_raw(statement(INSERT, [order_id, change])).await?;
        } else {
            tx.emit(OrderChanged { order_id, change })?;
        }
    }
    Ok(tx.commit().await?)
}

/// The old poller: sends unsent rows, and gives how many there were.
async fn poll(db: &DatabaseConnection, to: &Destination) -> anyhow::Result<usize> {
    let sql = "SELECT id, order_id, change FROM outbox WHERE sent = 0 ORDER BY id LIMIT ?";
    let rows = db.query_all_raw(statement(sql, [BATCH])).await?;
    for row in &rows {
        to.receive(row.try_get_by_index(1)?, row.try_get_by_index(2)?, "poller").await?;
        let sent = "UPDATE outbox SET sent = 1 WHERE id = ?";
        db.execute_raw(statement(sent, [row.try_get_by_index(0)?])).await?;
    }
    Ok(rows.len())
}

/// Leaves what the old release leaves: orders, and rows that its poller has not sent.
pub(crate) async fn leave_old_rows(folder: &Path) -> anyhow::Result<()> {
    let db = open(folder).await?;
    db.execute_unprepared("CREATE TABLE orders (id INTEGER PRIMARY KEY, changes BIGINT NOT NULL)")
        .await?;
    db.execute_unprepared(
        "CREATE TABLE outbox (id INTEGER PRIMARY KEY, order_id BIGINT NOT NULL, change BIGINT NOT NULL, \
         sent INTEGER NOT NULL DEFAULT 0)",
    )
    .await?;
    for order in 1..=ORDERS {
        let changes = if order < ORDERS { OLD_CHANGES } else { 0 };
        let insert = "INSERT INTO orders (id, changes) VALUES (?, ?)";
        db.execute_raw(statement(insert, [order, changes])).await?;
        for change in 1..=changes {
            db.execute_raw(statement(INSERT, [order, change])).await?;
        }
    }
    Ok(db.close().await?)
}

/// Counts the unsent rows of the old table, and the events of the outbox.
pub(crate) async fn waiting(folder: &Path) -> anyhow::Result<(i64, u64)> {
    let db = open(folder).await?;
    let rows = db.query_all_raw(statement("SELECT id FROM outbox WHERE sent = 0", [])).await?;
    let outbox = Outbox::builder(db).source("shop").build().await?;
    Ok((i64::try_from(rows.len())?, outbox.stats().await?.pending))
}

async fn open(folder: &Path) -> Result<DatabaseConnection, sea_orm::DbErr> {
    Database::connect(format!("sqlite://{}?mode=rwc", folder.join("shop.db").display())).await
}

fn statement<const N: usize>(sql: &str, values: [i64; N]) -> Statement {
    Statement::from_sql_and_values(DbBackend::Sqlite, sql, values.map(Value::from))
}
