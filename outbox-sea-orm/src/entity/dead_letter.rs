//! What could not go.

use sea_orm::entity::prelude::*;

/// One event that one route gave up, with its history.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_dead_letters")]
pub struct Model {
    /// Identity of the letter.
    #[sea_orm(primary_key)]
    pub letter_id: i64,
    /// The event's partition.
    pub partition_no: i16,
    /// The event's place in the order.
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
    /// The route; empty where no route takes the event.
    pub route: String,
    /// Why, such as `rejected` or `exhausted`.
    pub reason: String,
    /// Attempts that were counted.
    pub attempts: i64,
    /// The first failure and the last nine, a JSON array.
    pub errors: String,
    /// Whether the rest of its key waits for a decision.
    pub parks: bool,
    /// When it was put aside.
    pub dead_at: i64,
    /// The letter that it came from, when it was redriven and failed again.
    pub previous_id: Option<i64>,
    /// What was decided: `redriven`, `discarded` or `resent`.
    pub fate: Option<String>,
    /// When it was decided.
    pub fate_at: Option<i64>,
    /// Who decided.
    pub fate_by: Option<String>,
    /// Why, in their words.
    pub fate_why: Option<String>,
}

/// There are none: rows come and go without asking one another.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
