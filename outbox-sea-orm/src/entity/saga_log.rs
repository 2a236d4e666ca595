//! The log of sagas.

use sea_orm::entity::prelude::*;

/// One transition of one saga.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_saga_log")]
pub struct Model {
    /// The saga.
    #[sea_orm(primary_key, auto_increment = false)]
    pub saga_id: Uuid,
    /// Its place, from 1, without gaps.
    #[sea_orm(primary_key, auto_increment = false)]
    pub seq: i64,
    /// Kind of the record.
    pub kind: String,
    /// The step of the record.
    pub step: Option<String>,
    /// All of it, as JSON.
    #[sea_orm(column_type = "Text")]
    pub body: String,
    /// When.
    pub at_us: i64,
}

/// There are none: rows come and go without asking one another.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
