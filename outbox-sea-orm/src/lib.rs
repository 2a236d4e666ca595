//! The transactional outbox on SeaORM: events are saved in the transaction of the data that they
//! speak of, and a relay carries them to where they are wanted. SQLite, PostgreSQL, MySQL and
//! MariaDB.
//!
//! ```
//! use outbox_sea_orm::prelude::*;
//! # use outbox_sea_orm::event::{EncodeError, EventMeta};
//! # struct OrderPlaced { order_id: i64 }
//! # impl OutboxEvent for OrderPlaced {
//! #     fn meta(&self) -> EventMeta<'_> { EventMeta::new("order.placed").key(Some(self.order_id.to_string())) }
//! #     fn payload(&self) -> Result<bytes::Bytes, EncodeError> { Ok(bytes::Bytes::from_static(b"{}")) }
//! # }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let db = sea_orm::Database::connect("sqlite::memory:").await?;
//! let outbox = Outbox::builder(db).source("orders").install().await?;
//!
//! let tx = outbox.begin().await?;
//! // .. any SeaORM call with `&tx` ..
//! tx.emit(OrderPlaced { order_id: 7 })?;
//! tx.commit().await?; // data and event, or neither
//! # Ok(()) }
//! ```
//!
//! Follow one event; every module is one stage of its life. This crate re-exports [`outbox_core`]:
//! depend on it alone.
#![cfg_attr(
    not(all(feature = "sqlx-postgres", feature = "sqlx-mysql")),
    expect(dead_code, reason = "what belongs to the databases that are left out")
)]

mod admin_store;
mod chunks;
mod dialect;
pub mod entity;
mod error;
pub mod listener;
mod migration;
mod namespace;
mod notify;
pub mod outbox;
mod pool;
pub mod prelude;
pub mod saga;
#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod schema;
mod store;
mod transaction;

pub use dialect::Dialect;
pub use error::{BoxError, OutboxError};
pub(crate) use migration::MAX_PARTITIONS;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use migration::next;
pub use migration::{OutboxMigration, install};
pub use namespace::{Namespace, NamespaceError};
pub use notify::Notifier;
pub use outbox::{
    EnqueueOptions, InTransaction, OnDuplicate, Outbox, OutboxBuilder, Responded, RouteLimits,
};
pub use outbox_core::event::OutboxEvent;
pub use outbox_core::{admin, consumer, event, failure, relay, runtime, transport};
pub use outbox_macros::{OutboxEvent, event_handler, saga, transactional_outbox};
pub use pool::TransactionLimits;
pub use schema::{DedupConflict, DedupReservation, DeliverAt, Schema};
pub use store::{Retention, StoreOptions, open_relay_store};
pub use transaction::{OutboxTransaction, Outcome, Phase, TransactionRows, Transactional};
