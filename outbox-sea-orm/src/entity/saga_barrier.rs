//! Commands of sagas that this service has received.

use sea_orm::entity::prelude::*;

/// One command of one saga at one consumer, however often it was received.
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
    /// The round of the step, from 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub round: i64,
    /// `do` or `undo`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub phase: String,
    /// `done`, `rejected` or, where its compensation came first, `blocked`; of a compensation
    /// `undone`.
    pub outcome: String,
    /// Type of the reply; nothing here and below where it is the default one.
    pub event_type: Option<String>,
    /// Version of the reply.
    pub event_version: Option<i32>,
    /// Media type of the reply.
    pub content_type: Option<String>,
    /// Content of the reply.
    pub payload: Option<Vec<u8>>,
    /// Headers of the reply, as JSON.
    #[sea_orm(column_type = "Text", nullable)]
    pub headers: Option<String>,
    /// Hash of the command's type and content; nothing where that is unknown.
    pub command_hash: Option<Uuid>,
    /// When.
    pub written_at: i64,
    /// When the retention of the outbox that received it ends.
    pub keep_until: i64,
}

/// There are none: rows come and go without asking one another.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
