//! Scheduled events.

use sea_orm::entity::prelude::*;

/// One event that enters the outbox when it is due.
///
/// ```
/// # use outbox_sea_orm::entity::scheduled;
/// # use sea_orm::{DatabaseConnection, DbErr, EntityTrait, QueryOrder};
/// # async fn example(db: &DatabaseConnection) -> Result<(), DbErr> {
/// let next = scheduled::Entity::find().order_by_asc(scheduled::Column::DeliverAt).one(db).await?;
/// # let _ = next; Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_scheduled")]
pub struct Model {
    /// Identity of the row.
    #[sea_orm(primary_key)]
    pub scheduled_id: i64,
    /// The partition that it will be in.
    pub partition_no: i16,
    /// When it is due.
    pub deliver_at: i64,
    /// How long after it has entered it is worth delivering, in microseconds.
    pub ttl_us: Option<i64>,
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
}

/// There are none: rows come and go without asking one another.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
