//! Sagas that wait for entities that other sagas have locked.

use sea_orm::entity::prelude::*;

/// One saga and one entity.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_saga_waits")]
pub struct Model {
    /// The saga that waits.
    #[sea_orm(primary_key, auto_increment = false)]
    pub saga_id: Uuid,
    /// The entity's name.
    #[sea_orm(primary_key, auto_increment = false)]
    pub entity: String,
    /// Since when.
    pub since_us: i64,
}

/// There are none: rows come and go without asking one another.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
