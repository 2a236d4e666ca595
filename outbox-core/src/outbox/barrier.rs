//! What a store must do for a participant of sagas: which commands were done, and what was answered.

use super::{Store, StoreError};
use crate::{
    event::{Headers, SagaId},
    saga::{Call, CommandHash, Phase},
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{fmt, num::NonZeroU32};
use uuid::Uuid;

/// What a command is known by at a consumer, however often and under whichever message ids it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallKey<'a> {
    /// The consumer's stable name.
    pub consumer: &'a str,
    /// The saga.
    pub saga: SagaId,
    /// The step's stable name, 1 to 100 bytes.
    pub step: &'a str,
    /// How often the step was begun, from 1.
    pub round: NonZeroU32,
    /// What is asked for.
    pub phase: Phase,
}

impl<'a> CallKey<'a> {
    /// Makes the key of a call, in a phase that may be another than its own.
    #[must_use]
    pub fn of(consumer: &'a str, call: &'a Call, phase: Phase) -> Self {
        Self { consumer, saga: call.saga, step: &call.step, round: call.round, phase }
    }

    /// Gives the place of a command whose own one is another message's: that of a saga whose id is made of both.
    #[must_use]
    pub fn apart(self, command: &CommandHash) -> Self {
        let saga = Uuid::new_v5(self.saga.as_uuid(), command.as_uuid().as_bytes());
        Self { saga: SagaId::from_uuid(saga), ..self }
    }
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallOutcome {
    /// It was done.
    Done,
    /// It cannot be done, and nothing was.
    Rejected,
    /// It must not be done any more: its undoing came first.
    Blocked,
    /// It was undone, or there was nothing to undo.
    Undone,
}

impl CallOutcome {
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

/// The content of an answer: what is kept of it, and sent again when the command is repeated.
#[derive(Clone, PartialEq, Eq)]
pub struct CallAnswer {
    /// Type name, 1 to 255 bytes.
    pub event_type: String,
    /// Version of the payload's shape, from 1.
    pub event_version: u16,
    /// Media type, 1 to 255 bytes.
    pub content_type: String,
    /// The content, byte for byte.
    pub payload: Bytes,
    /// Headers that the answer's event set itself.
    pub headers: Headers,
}

impl fmt::Debug for CallAnswer {
    /// Shows everything but payload and header values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallAnswer")
            .field("type", &self.event_type)
            .field("version", &self.event_version)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// What is known of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCall {
    /// What became of it.
    pub outcome: CallOutcome,
    /// What was answered; `None` for the answer that goes with the outcome.
    pub answer: Option<CallAnswer>,
    /// Which command it was; `None` where nobody knows, and any may be meant.
    pub command: Option<CommandHash>,
}

impl KnownCall {
    /// Tells whether it is known of this command, and not of another message with its headers.
    #[must_use]
    pub fn is_of(&self, command: Option<&CommandHash>) -> bool {
        let (Some(known), Some(command)) = (&self.command, command) else { return true };
        known == command
    }
}

/// Keeps the barrier, in the transactions of handlers. Called by the consumer.
#[async_trait]
pub trait BarrierStore: Store {
    /// Notes in the transaction what became of a command, and which it was, unless something is known under its key: then that is
    /// given, as it was committed last, whatever the transaction has read before. Waits for another transaction that notes the
    /// same.
    async fn note_call(
        &self,
        tx: &Self::Tx,
        key: CallKey<'_>,
        command: Option<CommandHash>,
        outcome: CallOutcome,
    ) -> Result<Option<KnownCall>, StoreError>;

    /// Keeps the answer to a command that this transaction has noted.
    async fn keep_answer(
        &self,
        tx: &Self::Tx,
        key: CallKey<'_>,
        outcome: CallOutcome,
        answer: &CallAnswer,
    ) -> Result<(), StoreError>;

    /// Takes back what this transaction has noted of a command.
    async fn unnote_call(&self, tx: &Self::Tx, key: CallKey<'_>) -> Result<(), StoreError>;
}
