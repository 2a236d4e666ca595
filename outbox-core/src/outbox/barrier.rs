//! What a store must do for a participant of sagas: the barrier, with the commands that were handled and the
//! replies that were sent.

use super::{Store, StoreError};
use crate::event::{
    Headers, SagaId,
    command::{CommandHash, CommandId, CommandPhase},
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{fmt, num::NonZeroU32};
use uuid::Uuid;

/// The key of a command at a consumer, the same for each repeat and under any message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandKey<'a> {
    /// The consumer's stable name.
    pub consumer: &'a str,
    /// The saga.
    pub saga: SagaId,
    /// The step's stable name, 1 to 100 bytes.
    pub step: &'a str,
    /// Round of the step, from 1: how often it was started.
    pub round: NonZeroU32,
    /// Whether the command does the step or undoes it.
    pub phase: CommandPhase,
}

impl<'a> CommandKey<'a> {
    /// Makes the key of a command, in a phase that may be another than its own.
    #[must_use]
    pub fn of(consumer: &'a str, id: &'a CommandId, phase: CommandPhase) -> Self {
        Self { consumer, saga: id.saga, step: &id.step, round: id.round, phase }
    }

    /// Gives another key for a command whose own key another message has taken: with a saga id made of the saga's
    /// and the command's hash.
    #[must_use]
    pub fn disambiguated(self, command: &CommandHash) -> Self {
        let saga = Uuid::new_v5(self.saga.as_uuid(), command.as_uuid().as_bytes());
        Self { saga: SagaId::from_uuid(saga), ..self }
    }
}

/// The outcome of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandOutcome {
    /// The step was done.
    Done,
    /// The participant rejected it: the step cannot be done, and nothing was done.
    Rejected,
    /// The step must not be done any more: the command that undoes it came first.
    Blocked,
    /// The step was undone, or there was nothing to undo.
    Undone,
}

impl CommandOutcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Done, Self::Rejected, Self::Blocked, Self::Undone];

    /// Gives the name that is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Rejected => "rejected",
            Self::Blocked => "blocked",
            Self::Undone => "undone",
        }
    }

    /// Reads the name that is stored.
    #[must_use]
    pub fn from_stored(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == name)
    }
}

/// The stored part of a reply, which is sent again when the saga repeats the command.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredReply {
    /// Type name, 1 to 255 bytes.
    pub event_type: String,
    /// Version of the payload's shape, from 1.
    pub event_version: u16,
    /// Media type, 1 to 255 bytes.
    pub content_type: String,
    /// The content, byte for byte.
    pub payload: Bytes,
    /// Headers that the reply's event set itself.
    pub headers: Headers,
}

impl fmt::Debug for StoredReply {
    /// Shows everything but payload and header values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredReply")
            .field("type", &self.event_type)
            .field("version", &self.event_version)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// A command as the barrier has recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedCommand {
    /// Its outcome.
    pub outcome: CommandOutcome,
    /// Its reply; `None` for the default reply of the outcome.
    pub reply: Option<StoredReply>,
    /// Its hash; `None` where the hash was not known, and any command matches.
    pub command: Option<CommandHash>,
}

impl RecordedCommand {
    /// Tells whether this command is recorded, and not another message with its headers.
    #[must_use]
    pub fn is_of(&self, command: Option<&CommandHash>) -> bool {
        let (Some(known), Some(command)) = (&self.command, command) else { return true };
        known == command
    }
}

/// Keeps the barrier, in the transactions of handlers. Called by the consumer.
#[async_trait]
pub trait BarrierStore: Store {
    /// Records a command with its hash and outcome in the transaction, unless one is recorded under its key:
    /// then gives that, as it was committed last, whatever the transaction has read before. Waits for another
    /// transaction that records the same key.
    async fn record_command(
        &self,
        tx: &Self::Tx,
        key: CommandKey<'_>,
        command: Option<CommandHash>,
        outcome: CommandOutcome,
    ) -> Result<Option<RecordedCommand>, StoreError>;

    /// Stores outcome and reply of a command that this transaction has recorded.
    async fn store_reply(
        &self,
        tx: &Self::Tx,
        key: CommandKey<'_>,
        outcome: CommandOutcome,
        reply: &StoredReply,
    ) -> Result<(), StoreError>;

    /// Removes a command that this transaction has recorded.
    async fn remove_command(&self, tx: &Self::Tx, key: CommandKey<'_>) -> Result<(), StoreError>;
}
