//! Entities that sagas have locked.

use sea_orm::entity::prelude::*;

/// One entity, until the saga that has locked it ends.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_saga_locks")]
pub struct Model {
    /// Its name.
    #[sea_orm(primary_key, auto_increment = false)]
    pub entity: String,
    /// The saga.
    pub saga_id: Uuid,
    /// Since when.
    pub locked_at: i64,
}

/// There are none: rows come and go without asking one another.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
