//! The event that every story tells.

use outbox_sea_orm::OutboxEvent;
use serde::{Deserialize, Serialize};

/// Something that happened to an aggregate, the `n`th time from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "story.told", topic = "story")]
pub(crate) struct Told {
    #[outbox(key)]
    pub(crate) key: String,
    pub(crate) n: u64,
}

impl Told {
    pub(crate) fn new(key: impl Into<String>, n: u64) -> Self {
        Self { key: key.into(), n }
    }
}
