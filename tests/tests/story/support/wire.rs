//! The protocol between a publisher and a destination of the tests.

use outbox_sea_orm::{
    event::Message,
    transport::{PublishError, Receipt},
};
use serde::{Deserialize, Serialize};

/// A message as a destination receives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    /// The sending process.
    pub(crate) from: String,
    pub(crate) route: String,
    pub(crate) id: String,
    pub(crate) key: Option<String>,
    pub(crate) payload: String,
    /// The message that caused it.
    pub(crate) cause: Option<String>,
}

impl Sent {
    pub(crate) fn new(from: &str, route: &str, message: &Message) -> Self {
        Self {
            from: from.to_owned(),
            route: route.to_owned(),
            id: message.id.to_string(),
            key: message.key.clone(),
            payload: String::from_utf8_lossy(&message.payload).into_owned(),
            cause: message.headers.get("causationid").map(str::to_owned),
        }
    }
}

/// The answer of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Confirmed,
    Transient,
    Unavailable,
    Permanent,
    /// The destination is up and denies this sender.
    Forbidden,
    /// The publisher's process ends at once.
    Death,
}

impl Answer {
    /// The outcome of a publish that got this answer.
    pub(crate) fn into_outcome(self) -> Result<Receipt, PublishError> {
        match self {
            Self::Confirmed => Ok(Receipt::new()),
            Self::Transient => Err(PublishError::transient("not now")),
            Self::Unavailable => Err(PublishError::unavailable("nobody is here")),
            Self::Permanent => Err(PublishError::permanent("never")),
            Self::Forbidden => Err(PublishError::unavailable("not for you").responded()),
            Self::Death => std::process::abort(),
        }
    }
}
