//! The event that the tests emit.

use outbox_sea_orm::OutboxEvent;
use serde::{Deserialize, Serialize};

/// An event of a key, with its number from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "story.sample", topic = "story")]
pub(crate) struct Sample {
    #[outbox(key)]
    pub(crate) key: String,
    pub(crate) n: u64,
}

impl Sample {
    pub(crate) fn new(key: impl Into<String>, n: u64) -> Self {
        Self { key: key.into(), n }
    }
}
