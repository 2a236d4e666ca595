//! The tables as SeaORM entities, for tools and reports: one table a file.
//!
//! They are those of the default [`Namespace`](crate::Namespace). Instants are microseconds since
//! 1970-01-01 UTC, by the database's clock. Read them as you like; writing is for the outbox.
//!
//! ```
//! use outbox_sea_orm::entity::dead_letter;
//! use sea_orm::{EntityTrait, QueryFilter, QueryOrder, ColumnTrait};
//! # async fn example(db: &sea_orm::DatabaseConnection) -> Result<(), sea_orm::DbErr> {
//! let open = dead_letter::Entity::find()
//!     .filter(dead_letter::Column::Resolution.is_null())
//!     .order_by_desc(dead_letter::Column::LetterId)
//!     .all(db)
//!     .await?;
//! # let _ = open; Ok(()) }
//! ```

pub mod archive;
pub mod dead_letter;
pub mod deferred;
pub mod event;
pub mod inbox;
pub mod instance;
pub mod partition;
pub mod relay;
pub mod retry;
pub mod saga;
pub mod saga_barrier;
pub mod saga_lock;
pub mod saga_log;
pub mod saga_wait;
pub mod scheduled;
