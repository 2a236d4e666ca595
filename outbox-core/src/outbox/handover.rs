//! What a store must do for deliveries that one instance of a consumer cannot run and another one
//! may: the consumer defers them, and they wait for an instance that knows their type or saga, or
//! has the key of their payload.

use super::{
    ClaimQuery, Deferral, DeferredDelivery, DeliveryClaim, Store, StoreError, StoredDelivery,
};
use crate::event::Message;
use async_trait::async_trait;
use std::{fmt, sync::Arc, time::Duration};

/// What an instance has to know before it can run a delivery.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Awaited {
    /// An event type, in this version of its payload's shape or a later one.
    Type {
        /// Type name.
        name: String,
        /// Version of the payload's shape, from 1.
        version: u16,
    },
    /// A saga in exactly this version.
    Saga {
        /// Name of the definition.
        name: String,
        /// Version of the definition, from 1.
        version: u32,
    },
    /// A key of a payload codec.
    Key {
        /// Name of the codec and id of the key, parted by the first slash.
        name: String,
    },
}

impl Awaited {
    /// Gives what an instance has to know to read a message: its type, in its version.
    #[must_use]
    pub fn type_of(message: &Message) -> Self {
        Self::Type { name: message.event_type.clone(), version: message.event_version }
    }

    /// Gives what an instance has to have to decode a payload: a codec, with one of its keys.
    #[must_use]
    pub fn key(codec: &str, key_id: &str) -> Self {
        Self::Key { name: format!("{codec}/{key_id}") }
    }

    /// Gives codec and key id, where a key is awaited.
    #[must_use]
    pub fn codec_and_key(&self) -> Option<(&str, &str)> {
        match self {
            Self::Key { name } => name.split_once('/'),
            Self::Type { .. } | Self::Saga { .. } => None,
        }
    }

    /// Gives the kind as it is stored: `type`, `saga` or `key`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Type { .. } => "type",
            Self::Saga { .. } => "saga",
            Self::Key { .. } => "key",
        }
    }

    /// Gives the name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Type { name, .. } | Self::Saga { name, .. } | Self::Key { name } => name,
        }
    }

    /// Gives the version; a key has none, and 0 is stored for it.
    #[must_use]
    pub fn version(&self) -> u32 {
        match self {
            Self::Type { version, .. } => u32::from(*version),
            Self::Saga { version, .. } => *version,
            Self::Key { .. } => 0,
        }
    }

    /// Reads the stored form; `None` for an unknown kind or a version out of range.
    #[must_use]
    pub fn from_stored(kind: &str, name: String, version: u32) -> Option<Self> {
        match kind {
            "type" => Some(Self::Type { name, version: version.try_into().ok()? }),
            "saga" => Some(Self::Saga { name, version }),
            "key" => Some(Self::Key { name }).filter(|key| key.codec_and_key().is_some()),
            _ => None,
        }
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type { name, version } => write!(f, "version {version} of the type `{name}`"),
            Self::Saga { name, version } => write!(f, "version {version} of the saga `{name}`"),
            Self::Key { name } => match name.split_once('/') {
                Some((codec, key_id)) if !key_id.is_empty() => {
                    write!(f, "the key `{key_id}` of the payload codec `{codec}`")
                }
                _ => write!(f, "the payload codec `{}`", name.trim_end_matches('/')),
            },
        }
    }
}

/// What deliveries of one handler wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwaitedBy {
    /// The handler's stable name; empty if no known handler took the message.
    pub handler: Arc<str>,
    /// What an instance has to know beside the handler, if anything.
    pub awaited: Option<Awaited>,
}

/// Stores deliveries that wait for an instance that knows them.
#[async_trait]
pub trait HandoverStore: Store {
    /// Stores a delivery in the transaction, to wait for an instance that knows it; a delivery that
    /// is stored already stays as it is. It comes due for every instance when
    /// [`due_in`](DeferredDelivery::due_in) has passed, and is due now without it.
    async fn hand_over(
        &self,
        tx: &Self::Tx,
        delivery: &DeferredDelivery<'_>,
        awaited: Option<&Awaited>,
    ) -> Result<(), StoreError>;

    /// Releases a claimed delivery, to wait likewise; the time that it has waited before counts.
    /// `false` when the claim is lost.
    async fn hand_over_claimed(
        &self,
        claim: &DeliveryClaim,
        deferral: Deferral<'_>,
        awaited: Option<&Awaited>,
    ) -> Result<bool, StoreError>;

    /// Lists what deliveries of a consumer wait for, without repeats, at most a thousand.
    async fn awaited(&self, consumer: &str) -> Result<Vec<AwaitedBy>, StoreError>;

    /// Claims deliveries that wait for one of `known`, only the first of each key, due or not. They
    /// no longer wait: they are due now. The query's handlers are ignored.
    async fn claim_awaited(
        &self,
        query: &ClaimQuery<'_>,
        known: &[AwaitedBy],
    ) -> Result<Vec<StoredDelivery>, StoreError>;
}

/// Moves deferred deliveries whose handler was renamed, or is gone.
#[async_trait]
pub trait HandlerNameStore: Store {
    /// Counts deferred deliveries of a consumer under other handler names than these, by name;
    /// counting stops at [`COUNTED_DELIVERIES`]. The empty name, of messages that no handler took,
    /// is never counted.
    async fn under_other_names(
        &self,
        consumer: &str,
        handlers: &[Arc<str>],
    ) -> Result<Vec<(Arc<str>, u64)>, StoreError>;

    /// Lets deliveries of a handler wait for an instance that has it; after `due_in` they come due
    /// for every instance. Deliveries that wait already, and claimed ones, stay as they are.
    /// Changes at most `limit`; gives how many.
    async fn hand_over_all(
        &self,
        consumer: &str,
        handler: &str,
        due_in: Duration,
        limit: u32,
    ) -> Result<u64, StoreError>;

    /// Moves deliveries from one handler's name to another's, at most `limit`; gives how many. A
    /// delivery whose message is stored under the other name too stays.
    async fn rename_handler(
        &self,
        consumer: &str,
        from: &str,
        to: &str,
        limit: u32,
    ) -> Result<u64, StoreError>;
}

/// At which number the counting of deferred deliveries stops.
pub const COUNTED_DELIVERIES: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::Awaited;

    #[test]
    fn what_is_awaited_reads_back_from_its_stored_form() {
        let (name, version) = ("order.placed".to_owned(), 2);
        for (awaited, words) in [
            (Awaited::Type { name: name.clone(), version }, "version 2 of the type `order.placed`"),
            (Awaited::Saga { name, version: 2 }, "version 2 of the saga `order.placed`"),
            (Awaited::key("aead", "arn:kms/7"), "the key `arn:kms/7` of the payload codec `aead`"),
            (Awaited::key("zip", ""), "the payload codec `zip`"),
        ] {
            assert_eq!(awaited.to_string(), words);
            let stored =
                Awaited::from_stored(awaited.kind(), awaited.name().into(), awaited.version());
            assert_eq!(stored, Some(awaited));
        }
        assert_eq!(Awaited::key("aead", "a/b").codec_and_key(), Some(("aead", "a/b")));
        for (kind, name, version) in [("type", "a", 70_000), ("key", "a", 0), ("new", "a", 1)] {
            assert_eq!(Awaited::from_stored(kind, name.into(), version), None, "{kind}");
        }
    }
}
