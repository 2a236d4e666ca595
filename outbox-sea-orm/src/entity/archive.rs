//! Finished events, where relays archive them.

use sea_orm::entity::prelude::*;

/// One archived event.
///
/// ```
/// # use outbox_sea_orm::entity::archive;
/// # use sea_orm::{ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder};
/// # async fn example(db: &DatabaseConnection) -> Result<(), DbErr> {
/// let history = archive::Entity::find()
///     .filter(archive::Column::MessageKey.eq("order-7"))
///     .order_by_asc(archive::Column::EventId)
///     .all(db)
///     .await?;
/// # let _ = history; Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_archive")]
pub struct Model {
    /// Its place in the order.
    #[sea_orm(primary_key, auto_increment = false)]
    pub event_id: i64,
    /// Its partition.
    pub partition_no: i16,
    /// Public identity of the message.
    pub message_id: Uuid,
    /// The service that it comes from.
    pub source: String,
    /// Topic.
    pub topic: String,
    /// Type name.
    pub event_type: String,
    /// Version of the payload's shape.
    pub event_version: i32,
    /// Kind of aggregate.
    pub aggregate_type: Option<String>,
    /// Ordering key.
    pub message_key: Option<String>,
    /// Media type of the payload.
    pub content_type: String,
    /// The content, byte for byte.
    pub payload: Vec<u8>,
    /// Extra attributes, a JSON object of texts.
    pub headers: String,
    /// When it was saved.
    pub created_at: i64,
    /// When it stops being worth delivering.
    pub expires_at: Option<i64>,
    /// When it was finished.
    pub finished_at: i64,
}

/// There are none: rows come and go without asking one another.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
