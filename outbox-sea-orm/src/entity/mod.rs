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
pub mod event;
pub mod saga;
pub mod saga_log;
pub mod scheduled;

// What relays, consumers and coordinators keep for themselves: other columns with each version.
#[doc(hidden)]
pub mod deferred;
#[doc(hidden)]
pub mod inbox;
#[doc(hidden)]
pub mod instance;
#[doc(hidden)]
pub mod partition;
#[doc(hidden)]
pub mod relay;
#[doc(hidden)]
pub mod retry;
#[doc(hidden)]
pub mod saga_barrier;
#[doc(hidden)]
pub mod saga_lock;
#[doc(hidden)]
pub mod saga_wait;
