//! Relays that run.

use sea_orm::entity::prelude::*;

/// One relay process.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_relays")]
pub struct Model {
    /// Its identity, new at each start.
    #[sea_orm(primary_key, auto_increment = false)]
    pub relay_id: String,
    /// When the lease on its partitions ends.
    pub lease_until: i64,
    /// Hash of its route set.
    pub routes: i64,
    /// When it started.
    pub started_at: i64,
}

/// There are none: rows come and go without asking one another.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
