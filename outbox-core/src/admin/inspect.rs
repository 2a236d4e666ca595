//! What an operator can ask of a store. No query scans: counts are bounded, and lists are read page
//! by page.

use super::{
    Bounded, CommandFacts, ConsumerLive, Controls, DeadLetterFilter, Facts, RelayLive, SagasLive,
};
use crate::{
    event::{LetterId, MessageId, SagaId, Timestamp},
    failure::{DeadLetter, DeadReason},
    outbox::{OutboxStats, PartitionNo, StoreError},
    saga::{CommandId, SagaCounts},
};
use async_trait::async_trait;
use serde::Serialize;
use std::{fmt, str::FromStr};

/// A relay as operators see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RelayView {
    /// Its identity, new at each start.
    pub id: String,
    /// Whether its lease is valid.
    pub live: bool,
    /// When it started.
    pub started_at: Timestamp,
    /// When its lease ends, or ended.
    pub lease_until: Timestamp,
    /// The partitions that it owns.
    #[serde(serialize_with = "numbers")]
    pub partitions: Vec<PartitionNo>,
    /// What it wrote about itself last.
    pub state: Option<RelayLive>,
    /// When it wrote that.
    pub written_at: Option<Timestamp>,
}

fn numbers<S: serde::Serializer>(list: &[PartitionNo], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(list.iter().map(|partition| partition.0))
}

/// A running consumer, or coordinator of sagas, as operators see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConsumerView<T = ConsumerLive> {
    /// The identity of the instance.
    pub id: String,
    /// The consumer's name; empty for a coordinator.
    pub name: String,
    /// Whether it has renewed its row within the last minute.
    pub live: bool,
    /// What it wrote about itself last.
    pub state: T,
    /// When it wrote that.
    pub written_at: Timestamp,
}

/// One database at a glance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overview {
    /// The database's clock at the read.
    pub now: Timestamp,
    /// The source of the service that owns the outbox.
    pub source: String,
    /// Events, retries and dead letters.
    pub events: OutboxStats,
    /// Deferred deliveries.
    pub deferred: Bounded,
    /// Scheduled events.
    pub scheduled: Bounded,
    /// Sagas that have not ended.
    pub sagas: SagaCounts,
    /// Relays: those with a valid lease, and those that own a partition.
    pub relays: Vec<RelayView>,
    /// Partitions without an owner.
    pub unowned: u16,
    /// Running consumers.
    pub consumers: Vec<ConsumerView>,
    /// Running coordinators of sagas.
    pub coordinators: Vec<ConsumerView<SagasLive>>,
    /// Controls in force.
    #[serde(serialize_with = "list")]
    pub controls: Controls,
}

fn list<S: serde::Serializer>(controls: &Controls, to: S) -> Result<S::Ok, S::Error> {
    controls.0.serialize(to)
}

/// What an operator asks about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
pub enum Subject {
    /// A message, by its public id.
    Message(MessageId),
    /// A key of events.
    Key(String),
    /// A saga.
    Saga(SagaId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(id) => write!(f, "message {id}"),
            Self::Key(key) => write!(f, "key {key}"),
            Self::Saga(id) => write!(f, "saga {id}"),
        }
    }
}

/// The text names no subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no subject: write `message ID`, `key KEY` or `saga ID`")]
pub struct SubjectError;

impl FromStr for Subject {
    type Err = SubjectError;

    /// Reads the form that `Display` writes.
    fn from_str(s: &str) -> Result<Self, SubjectError> {
        let (kind, id) = s.split_once(' ').ok_or(SubjectError)?;
        match kind {
            "message" => id.parse().map(Self::Message).map_err(|_| SubjectError),
            "key" => Ok(Self::Key(id.to_owned())),
            "saga" => id.parse().map(Self::Saga).map_err(|_| SubjectError),
            _ => Err(SubjectError),
        }
    }
}

/// Something that a text names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// What it is, to ask further.
    pub subject: Subject,
    /// What it is, in words: `an event in the outbox`, `an open dead letter`.
    pub what: String,
    /// Its topic and type, or the saga's name; empty if unknown.
    pub name: String,
    /// When it was made.
    pub at: Option<Timestamp>,
}

/// The kind of an entry of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum HistoryKind {
    /// The event was saved.
    Created,
    /// It is scheduled for later.
    Scheduled,
    /// An attempt failed.
    Failed,
    /// A route has confirmed it.
    Confirmed,
    /// All routes have confirmed it, and it is in the archive.
    Archived,
    /// It became a dead letter.
    DeadLetter,
    /// An operator resolved the dead letter.
    Resolved,
    /// A consumer has handled it.
    Received,
    /// A consumer has deferred it.
    Deferred,
    /// A saga began.
    SagaStarted,
    /// A saga wrote a record.
    SagaRecord,
    /// A saga ended.
    SagaEnded,
}

/// One entry of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryEntry {
    /// When; `None` where the store does not keep it.
    pub at: Option<Timestamp>,
    /// The service: the source of the outbox, or the consumer.
    pub service: String,
    /// The message that it is about; `None` for a record of a saga.
    pub message: Option<MessageId>,
    /// The type of the message, where the store knows it.
    #[serde(skip)]
    pub event_type: Option<String>,
    /// What happened.
    pub kind: HistoryKind,
    /// The same in a sentence.
    pub text: String,
}

/// What a store still has about a subject, in order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct History {
    /// The entries.
    pub entries: Vec<HistoryEntry>,
    /// What is gone, and by which retention, in sentences; what the search has left out.
    pub gone: Vec<String>,
}

/// Dead letters of one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterGroup {
    /// The route that gave them up; for a consumer's letters `consumer/handler`.
    pub route: String,
    /// Why.
    pub reason: DeadReason,
    /// The last error, with numbers and ids taken out.
    pub error: String,
    /// How many.
    pub count: Bounded,
    /// The oldest of them.
    pub first_at: Timestamp,
    /// The newest of them.
    pub last_at: Timestamp,
    /// A filter that selects them, as far as a filter can.
    #[serde(skip)]
    pub filter: DeadLetterFilter,
}

/// A deferred delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeferredView {
    /// Its number, which orders the list.
    pub id: i64,
    /// The consumer.
    pub consumer: String,
    /// The handler.
    pub handler: String,
    /// The message.
    pub message: MessageId,
    /// Its topic.
    pub topic: String,
    /// Its type.
    pub event_type: String,
    /// Its key.
    pub key: Option<String>,
    /// When it is due; `None` behind others of its key.
    pub due_at: Option<Timestamp>,
    /// Failures that were counted.
    pub failures: u32,
    /// The last of them.
    pub last_error: Option<String>,
    /// The type, saga or handler that no running instance has yet, in words.
    pub awaits: Option<String>,
}

/// A scheduled event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScheduledView {
    /// Its number, which orders the list.
    pub id: i64,
    /// The message.
    pub message: MessageId,
    /// Its topic.
    pub topic: String,
    /// Its type.
    pub event_type: String,
    /// Its key.
    pub key: Option<String>,
    /// When it is due.
    pub deliver_at: Timestamp,
}

/// A row of the inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InboxView {
    /// The consumer.
    pub consumer: String,
    /// The handler.
    pub handler: String,
    /// The sender.
    pub source: String,
    /// The message.
    pub message: MessageId,
    /// Until when a repeat is recognised.
    pub keep_until: Timestamp,
}

/// Which part of a list is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// From the row after this one.
    pub after: Option<i64>,
    /// At most so many rows.
    pub limit: u32,
}

/// Answers an operator's questions. Stores implement it.
#[async_trait]
pub trait InspectStore: Send + Sync + 'static {
    /// Gives one database at a glance.
    async fn overview(&self) -> Result<Overview, StoreError>;

    /// Finds what a text names: a message id, a saga's id or correlation id, a key, a number of a
    /// dead letter. At most 20 things.
    async fn find(&self, text: &str) -> Result<Vec<Found>, StoreError>;

    /// Gives what the store has about a subject, at most `limit` entries.
    async fn history(&self, subject: &Subject, limit: u32) -> Result<History, StoreError>;

    /// Gives the facts about a subject that explain why it stands still; `None` if the store has
    /// nothing of it, which [`Facts::nothing`] explains.
    async fn facts(&self, subject: &Subject) -> Result<Option<Facts>, StoreError>;

    /// Gives what the store has of a command of a saga, and of the reply to it: as the service that
    /// sends the command, or as its participant. `None` from a store without this, which cannot tell.
    async fn command_facts(&self, command: &CommandId) -> Result<Option<CommandFacts>, StoreError> {
        let _ = command;
        Ok(None)
    }

    /// Groups dead letters by their cause, the largest group first. Reads at most the newest 10,000
    /// letters of the filter.
    async fn letter_groups(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<LetterGroup>, StoreError>;
}

/// Lists what is stored, page by page.
#[async_trait]
pub trait ListStore: Send + Sync + 'static {
    /// Lists deferred deliveries of a consumer, or of all, by number.
    async fn deferred(
        &self,
        consumer: Option<&str>,
        page: Page,
    ) -> Result<Vec<DeferredView>, StoreError>;

    /// Lists scheduled events by number.
    async fn scheduled(&self, page: Page) -> Result<Vec<ScheduledView>, StoreError>;

    /// Gives the rows of the inbox of a message, in every handler.
    async fn inbox(&self, message: MessageId) -> Result<Vec<InboxView>, StoreError>;

    /// Lists dead letters as [`AdminStore::dead_letters`](super::AdminStore::dead_letters) does,
    /// with empty payloads: by identity, from the one after `after`, at most `limit`, and as many
    /// as fit one result by the bytes of their headers and errors. Only an empty result says that
    /// there are no more.
    async fn letters_without_payload(
        &self,
        filter: &DeadLetterFilter,
        after: Option<LetterId>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_as_it_is_written() {
        for subject in [
            Subject::Message(MessageId::generate()),
            Subject::Key("orders/7 b".to_owned()),
            Subject::Saga(SagaId::generate()),
        ] {
            assert_eq!(subject.to_string().parse(), Ok(subject));
        }
        assert_eq!("order 7".parse::<Subject>(), Err(SubjectError));
    }
}
