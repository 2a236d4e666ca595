//! Deliveries that consumers have deferred.

use sea_orm::entity::prelude::*;

/// One message that is deferred for one handler.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_deferred")]
pub struct Model {
    /// Identity, and place among the deliveries with one `order_hash`.
    #[sea_orm(primary_key)]
    pub stored_id: i64,
    /// The consumer.
    pub consumer: String,
    /// The handler; empty where none took the message.
    pub handler: String,
    /// Hash of source and key; empty without a key.
    pub order_hash: Option<i64>,
    /// Its place in the order of its sender.
    pub sequence_no: Option<i64>,
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
    /// When the sender saved it, by the sender's clock.
    pub created_at: i64,
    /// When it stops being worth delivering, by the sender's clock.
    pub expires_at: Option<i64>,
    /// When it was stored.
    pub stored_at: i64,
    /// When it is due; empty behind another delivery with its `order_hash`.
    pub due_at: Option<i64>,
    /// Runs that were begun.
    pub attempts_started: i64,
    /// Runs that ended.
    pub attempts_finished: i64,
    /// Runs that failed.
    pub failures: i64,
    /// When the first of them failed.
    pub failing_since: Option<i64>,
    /// The first failure and the last nine, a JSON array.
    pub errors: String,
    /// The letter that it was redriven from.
    pub letter_id: Option<i64>,
    /// The instance that has claimed it.
    pub claimed_by: Option<String>,
    /// When the claim ends, unless the instance extends it.
    pub claimed_until: Option<i64>,
    /// What an instance has to know to run it: a `type`, a `saga` or the `key` of its payload; empty
    /// where only the handler is missing, and where nothing is.
    pub awaits_kind: Option<String>,
    /// Name of that type or saga; of a key the codec's name, a slash and the key's id.
    pub awaits: Option<String>,
    /// Its version; 0 of a key.
    pub awaits_version: Option<i32>,
    /// Since when it waits for such an instance; empty where any instance with the handler may run
    /// it.
    pub awaits_since: Option<i64>,
}

/// There are none: rows come and go without asking one another.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
