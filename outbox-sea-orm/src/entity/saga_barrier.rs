//! Commands of sagas that came to this service.

use sea_orm::entity::prelude::*;

/// One command of one saga at one consumer, however often it came.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_saga_barrier")]
pub struct Model {
    /// The consumer.
    #[sea_orm(primary_key, auto_increment = false)]
    pub consumer: String,
    /// The saga.
    #[sea_orm(primary_key, auto_increment = false)]
    pub saga_id: Uuid,
    /// The step.
    #[sea_orm(primary_key, auto_increment = false)]
    pub step: String,
    /// How often the step was begun, from 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub round: i64,
    /// `do` or `undo`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub phase: String,
    /// `done`, `rejected` or, where its undoing came first, `blocked`; of an undoing `undone`.
    pub outcome: String,
    /// Type of the answer; nothing here and below where it is the usual one.
    pub event_type: Option<String>,
    /// Version of the answer.
    pub event_version: Option<i32>,
    /// Media type of the answer.
    pub content_type: Option<String>,
    /// Content of the answer.
    pub payload: Option<Vec<u8>>,
    /// Headers of the answer, as JSON.
    #[sea_orm(column_type = "Text", nullable)]
    pub headers: Option<String>,
    /// Of which command it is, by a hash of type and content; nothing where that is not known.
    pub command_hash: Option<Uuid>,
    /// When.
    pub written_at: i64,
    /// Until when it is remembered: the retention of the outbox that received it.
    pub keep_until: i64,
}

/// There are none: rows come and go without asking one another.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
