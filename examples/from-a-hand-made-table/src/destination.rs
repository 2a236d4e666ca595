//! The destination: a database of its own. It knows an event by its order and the number of the change,
//! which both ways carry, and so a repeat has no effect.

use crate::service::OrderChanged;
use anyhow::Context;
use async_trait::async_trait;
use outbox_sea_orm::{
    prelude::*,
    transport::{PublishError, Publisher, Receipt},
};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, Statement, Value};
use std::path::Path;

#[derive(Debug, Clone)]
pub(crate) struct Destination(DatabaseConnection);

impl Destination {
    pub(crate) async fn open(folder: &Path) -> Result<Self, DbErr> {
        let file = folder.join("destination.db");
        let db = Database::connect(format!("sqlite://{}?mode=rwc", file.display())).await?;
        db.execute_unprepared(
            "CREATE TABLE IF NOT EXISTS received (id INTEGER PRIMARY KEY, order_id BIGINT NOT NULL, \
             change BIGINT NOT NULL, sender TEXT NOT NULL, UNIQUE (order_id, change))",
        )
        .await?;
        Ok(Self(db))
    }

    /// Takes an event, once, and prints a line.
    pub(crate) async fn receive(&self, order: i64, change: i64, sender: &str) -> Result<(), DbErr> {
        let sql = "INSERT OR IGNORE INTO received (order_id, change, sender) VALUES (?, ?, ?)";
        let values: [Value; 3] = [order.into(), change.into(), sender.into()];
        let insert = Statement::from_sql_and_values(DbBackend::Sqlite, sql, values);
        self.0.execute_raw(insert).await?;
        println!("order {order}, change {change}, by the {sender}");
        Ok(())
    }
}

#[async_trait]
impl Publisher for Destination {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let event: OrderChanged = serde_json::from_slice(&message.payload)
            .map_err(|error| PublishError::permanent("no event of ours").caused_by(error))?;
        let received = self.receive(event.order_id, event.change, "relay").await;
        received.map_err(|error| PublishError::unavailable("the destination").caused_by(error))?;
        Ok(Receipt::new())
    }
}

/// Counts what was received from the poller and from the relay, and the changes that came after a later
/// one of their order.
pub(crate) async fn received(folder: &Path) -> anyhow::Result<[i64; 3]> {
    let sql = "SELECT COUNT(*) FILTER (WHERE sender = 'poller'), COUNT(*) FILTER (WHERE sender = 'relay'), \
               COUNT(*) FILTER (WHERE EXISTS (SELECT 1 FROM received b WHERE b.order_id = a.order_id \
               AND b.change > a.change AND b.id < a.id)) FROM received a";
    let db = Destination::open(folder).await?.0;
    let row = db.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await?;
    let row = row.context("counts are a row")?;
    Ok([row.try_get_by_index(0)?, row.try_get_by_index(1)?, row.try_get_by_index(2)?])
}
