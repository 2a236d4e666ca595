//! The state of events on routes that did not confirm them at once.

use sea_orm::entity::prelude::*;

/// One event on one route.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_retries")]
pub struct Model {
    /// The event's partition.
    #[sea_orm(primary_key, auto_increment = false)]
    pub partition_no: i16,
    /// The event.
    #[sea_orm(primary_key, auto_increment = false)]
    pub event_id: i64,
    /// The route.
    #[sea_orm(primary_key, auto_increment = false)]
    pub route: String,
    /// The event's ordering key.
    pub message_key: Option<String>,
    /// `waiting`, `done` or `dead`.
    pub state: String,
    /// Attempts begun while a crash was feared.
    pub attempts_started: i64,
    /// Attempts that ended in a counted failure.
    pub attempts_finished: i64,
    /// When it is due; empty where its place in the order decides.
    pub due_at: Option<i64>,
    /// For how long failures have been counted, in microseconds.
    pub failing_us: i64,
    /// The first failure and the last nine, a JSON array.
    pub errors: String,
    /// Whether an operator set it to be delivered again.
    pub redriven: bool,
}

/// There are none: rows come and go without asking one another.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
