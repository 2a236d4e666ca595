//! Dead letters.

use sea_orm::entity::prelude::*;

/// One event that one route or handler gave up, with its history.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_dead_letters")]
pub struct Model {
    /// Identity of the letter.
    #[sea_orm(primary_key)]
    pub letter_id: i64,
    /// Who wrote the letter: `relay` or `consumer`.
    pub origin: String,
    /// The event's partition; empty in the letter of a consumer.
    pub partition_no: Option<i16>,
    /// The event's place in the order; in the letter of a consumer its sender's, negated, or 0
    /// where the sender has none.
    pub event_id: i64,
    /// Public identity of the message.
    pub message_id: Uuid,
    /// The service that it comes from.
    pub source: String,
    /// Topic.
    pub topic: String,
    /// Type name.
    pub event_type: String,
    /// Version of the payload's shape.
    pub event_version: i32,
    /// Kind of aggregate.
    pub aggregate_type: Option<String>,
    /// Ordering key.
    pub message_key: Option<String>,
    /// Media type of the payload.
    pub content_type: String,
    /// The content, byte for byte.
    pub payload: Vec<u8>,
    /// Extra attributes, a JSON object of texts.
    pub headers: String,
    /// When it was saved.
    pub created_at: i64,
    /// When it stops being worth delivering.
    pub expires_at: Option<i64>,
    /// The route, empty where no route takes the event; in the letter of a consumer
    /// `consumer/handler`.
    pub route: String,
    /// Why, such as `rejected` or `exhausted`.
    pub reason: String,
    /// Attempts that were counted.
    pub attempts: i64,
    /// The first failure and the last nine, a JSON array.
    pub errors: String,
    /// Whether later events of the key wait until an operator resolves the letter.
    pub parks: bool,
    /// When the letter was written.
    pub dead_at: i64,
    /// The letter that this event was redriven from before it failed again.
    pub previous_id: Option<i64>,
    /// How an operator resolved it: `redriven`, `discarded` or `resent`.
    pub resolution: Option<String>,
    /// When.
    pub resolved_at: Option<i64>,
    /// The operator.
    pub resolved_by: Option<String>,
    /// The operator's reason.
    pub resolution_reason: Option<String>,
}

/// There are none: rows come and go without asking one another.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
