//! What the cases share: an event, an error, and an outbox in memory.

#![allow(dead_code, unused_imports)]

pub use outbox_sea_orm::prelude::*;
pub use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, TransactionTrait};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders")]
pub struct OrderPlaced {
    #[outbox(key)]
    pub order_id: i64,
}

impl From<&i64> for OrderPlaced {
    fn from(order_id: &i64) -> Self {
        Self { order_id: *order_id }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Db(#[from] DbErr),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error("refused")]
    Refused,
}

/// Makes an outbox in memory.
pub async fn outbox() -> Outbox {
    let db = sea_orm::Database::connect("sqlite::memory:").await.unwrap();
    Outbox::builder(db).source("shop").install().await.unwrap()
}

/// Counts the events.
pub async fn events(outbox: &Outbox) -> i64 {
    let count = sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, "SELECT COUNT(*) FROM outbox_events");
    outbox.connection().query_one_raw(count).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// Runs a case.
pub fn run(case: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(case);
}

/// Takes what can go to another thread.
pub fn send<F: Future + Send>(future: F) -> F {
    future
}
