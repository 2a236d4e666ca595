//! Partitions and their owners.

use sea_orm::entity::prelude::*;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_partitions")]
pub struct Model {
    /// Its number, from 0.
    #[sea_orm(primary_key, auto_increment = false)]
    pub partition_no: i16,
    /// The relay that owns it.
    pub owner: Option<String>,
    /// Raised with each new owner.
    pub epoch: i64,
}

/// There are none: rows come and go without asking one another.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
