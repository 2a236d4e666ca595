//! Messages that consumers have received.

use sea_orm::entity::prelude::*;

/// One message that one handler has received.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_inbox")]
pub struct Model {
    /// The consumer.
    #[sea_orm(primary_key, auto_increment = false)]
    pub consumer: String,
    /// The handler.
    #[sea_orm(primary_key, auto_increment = false)]
    pub handler: String,
    /// The service that the message came from.
    #[sea_orm(primary_key, auto_increment = false)]
    pub source: String,
    /// The message.
    #[sea_orm(primary_key, auto_increment = false)]
    pub message_id: Uuid,
    /// When the retention of the outbox that received it ends, in microseconds since 1970.
    pub keep_until: i64,
}

/// There are none: rows come and go without asking one another.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
