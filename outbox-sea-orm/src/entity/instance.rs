//! Instances of consumers that have not ended in an orderly way.

use sea_orm::entity::prelude::*;

/// One start of a consumer.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_instances")]
pub struct Model {
    /// Random for each start.
    #[sea_orm(primary_key, auto_increment = false)]
    pub instance_id: String,
    /// The consumer's stable name.
    pub consumer: String,
    /// Most deliveries in flight, which are delivered again after a crash.
    pub max_in_flight: i64,
    /// JSON: its handlers, with the types and versions that they accept.
    pub handlers: String,
    /// When it was started.
    pub started_at: i64,
    /// Until when it counts as alive.
    pub lease_until: i64,
}

/// There are none: rows come and go without asking one another.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
