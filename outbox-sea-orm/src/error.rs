//! The errors of the caller's transaction.

use crate::pool::{DbErrorClass, classify, store_error};
use outbox_core::{
    consumer::ReplyError,
    event::{EncodeError, MessageId},
    failure::FailureClass,
    outbox::StoreError,
    transport::LimitError,
};
use sea_orm::{DbErr, IsolationLevel};
use std::time::Duration;

pub use outbox_core::failure::BoxError;

/// An error of a transaction or of an outbox.
///
/// ```
/// # use outbox_sea_orm::prelude::*;
/// fn status(error: &OutboxError) -> u16 {
///     match error {
///         OutboxError::Duplicate { same_bytes: true, .. } => 200, // the request is a repeat
///         OutboxError::Duplicate { .. } => 409,
///         OutboxError::Limit(_) | OutboxError::Encode(_) => 422,
///         OutboxError::Begin(_) => 503,
///         _ => 500,
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// The builder has settings that cannot work; every fault is listed.
    #[error("the outbox is configured wrongly: {}", .0.join("; "))]
    Configuration(Vec<String>),
    /// The outbox's tables could not be created or upgraded: others exist, or the role of this
    /// program may not create them; then the error has the SQL for a role that may.
    #[error("the outbox could not be installed: {0}")]
    Install(String),
    /// No transaction was opened.
    #[error("no transaction could be opened")]
    Begin(#[source] DbErr),
    /// A statement failed; the transaction goes on only if its database allows that.
    #[error("a statement of the transaction failed")]
    Database(#[from] DbErr),
    /// The database has rolled the whole transaction back by itself: a deadlock, a serialization
    /// failure, a lost connection. Later statements are refused, because some databases would
    /// commit them one by one.
    #[error("the database has rolled the transaction back")]
    Aborted(#[source] DbErr),
    /// The database refused to commit; everything is rolled back.
    #[error("the database refused to commit")]
    Commit(#[source] DbErr),
    /// COMMIT was sent, and its response was lost: the transaction may be committed or not.
    /// Repeating it is safe with a `dedup_key`.
    #[error("it is unknown whether the transaction is committed")]
    OutcomeUnknown(#[source] DbErr),
    /// The event has no encoding, its envelope breaks a rule, or the payload codec has failed.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A handler's reply to a command of a saga was refused.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// A destination of the event would refuse it.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// As many events wait for relays as
    /// [`max_waiting`](crate::OutboxBuilder::max_waiting) allows; this one was not saved.
    #[error(
        "{limit} events wait already, as many as `max_waiting` allows, so this one is not saved: try again when relays have published \
         some; `outbox explain` says why they wait"
    )]
    TooManyWaiting {
        /// How many may wait.
        limit: u64,
    },
    /// The dedup key has been used already; everything is rolled back.
    #[error("the dedup key `{dedup_key}` was used already, for message {message_id}")]
    Duplicate {
        /// The key.
        dedup_key: String,
        /// The message that was saved under it.
        message_id: MessageId,
        /// Whether that message had the same content.
        same_bytes: bool,
    },
    /// The response of [`respond_once`](crate::Outbox::respond_once) cannot be saved or read, or
    /// its key is invalid; everything is rolled back.
    #[error("the response under `{dedup_key}`: {problem}")]
    Response {
        /// The key.
        dedup_key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A function that had joined the transaction failed, and its caller swallowed the error.
    #[error(
        "`{function}` failed inside this transaction and its error was swallowed, so the transaction can only be rolled \
         back; let `{function}` run in a savepoint with `#[transactional_outbox(nested)]` if its failure may be ignored"
    )]
    RollbackOnly {
        /// The function that failed.
        function: &'static str,
    },
    /// A nested transaction was opened while another one of the same transaction is open.
    #[error("a nested transaction is open; commit it, roll it back or drop it first")]
    NestedOpen,
    /// A stream of the transaction's rows is open. Its connection can do nothing else until the
    /// stream has ended or is dropped; a statement in the stream's own loop would wait for ever.
    /// The transaction itself goes on.
    #[error(
        "a stream of rows is open in this transaction, and its connection can do nothing else meanwhile: collect the rows first, \
         with `.all(tx)` or `try_collect`, and write afterwards, or read the stream outside of the transaction"
    )]
    Streaming,
    /// The transaction was committed while a nested one is open; everything is rolled back.
    #[error("a nested transaction is still open at commit")]
    NestedStillOpen,
    /// A function that needs an isolation level has joined a transaction that was opened with a
    /// weaker one.
    #[error(
        "`{function}` needs isolation {wanted}, and has joined a transaction that was not opened with it"
    )]
    Isolation {
        /// The function that was called.
        function: &'static str,
        /// The isolation that it needs.
        wanted: IsolationLevel,
    },
    /// The transaction around this one has ended.
    #[error("the transaction has ended already")]
    Ended,
    /// A hook or listener of the phase before commit failed; everything is rolled back.
    #[error("a listener before commit failed")]
    BeforeCommit(#[source] BoxError),
    /// The caller of a `mandatory` function passed an outbox instead of a transaction.
    #[error("`{function}` must be called inside a transaction")]
    Mandatory {
        /// The function that was called.
        function: &'static str,
    },
    /// A function that takes its transaction from the task cannot join the one that the task opened
    /// itself, and would open a second one beside it.
    #[error(
        "this task holds a transaction that it opened with `outbox.begin()`, which `{function}` cannot join: call `{function}` \
         inside `outbox.transaction(async |tx| ..)`, or let it take `tx: &OutboxTransaction` as a parameter; `requires_new` opens \
         another one on purpose"
    )]
    CannotJoin {
        /// The function that was called.
        function: &'static str,
    },
    /// `requires_new` inside a transaction on SQLite, which has one writer: the inner one would
    /// wait for the outer one.
    #[error(
        "`{function}` asks for a transaction of its own while another one is open, and SQLite has one writer: it would wait for \
         itself; let it join, or call it before or after"
    )]
    SelfDeadlock {
        /// The function that was called.
        function: &'static str,
    },
    /// `requires_new` inside a transaction, and the pool had no second connection.
    #[error(
        "`{function}` asks for a transaction of its own while another one is open, and got no connection within {waited:?}: each \
         such call needs two, so give the pool more `max_connections`, or let the function join"
    )]
    NoSecondConnection {
        /// The function that was called.
        function: &'static str,
        /// How long the function waited.
        waited: Duration,
    },
    /// A transaction of its own inside of a try of a handler, which could not roll it back.
    #[error(
        "`{call}` opens a transaction of its own, which a try of a handler could not roll back: it is refused; write through \
         `cx.tx`, or say `no_try` where the handler needs it"
    )]
    InTrial {
        /// The call: `Outbox::begin`, or the name of the function.
        call: &'static str,
    },
    /// An error of the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OutboxError {
    /// Tells whether the same call may succeed later.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Begin(e)
            | Self::Database(e)
            | Self::Aborted(e)
            | Self::Commit(e)
            | Self::OutcomeUnknown(e) => match classify(e) {
                DbErrorClass::Unavailable => FailureClass::Unavailable,
                DbErrorClass::Busy => FailureClass::Transient,
                DbErrorClass::Missing | DbErrorClass::Refused | DbErrorClass::Unusable => {
                    FailureClass::Permanent
                }
            },
            Self::Store(e) => e.class(),
            _ => FailureClass::Permanent,
        }
    }

    /// Tells whether a permanent failure is one of the written values: with other values the call
    /// may succeed.
    fn is_caused_by_values(&self) -> bool {
        match self {
            Self::Begin(e) | Self::Database(e) | Self::Aborted(e) | Self::Commit(e) => {
                classify(e) == DbErrorClass::Refused
            }
            _ => true,
        }
    }

    /// Tells whether repeating the whole transaction is safe and may succeed: a deadlock, a
    /// serialization failure, a busy database. Never so for
    /// [`OutcomeUnknown`](Self::OutcomeUnknown).
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Begin(e) | Self::Database(e) | Self::Aborted(e) | Self::Commit(e) => {
                classify(e) == DbErrorClass::Busy
            }
            Self::Store(e) => matches!(e, StoreError::Busy(_)),
            _ => false,
        }
    }
}

impl From<OutboxError> for DbErr {
    /// Gives the database's own error where there is one, so that SeaORM code can match on it.
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Begin(e)
            | OutboxError::Database(e)
            | OutboxError::Aborted(e)
            | OutboxError::Commit(e)
            | OutboxError::OutcomeUnknown(e) => e,
            other => Self::Custom(other.to_string()),
        }
    }
}

impl From<OutboxError> for StoreError {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Store(e) => e,
            // A table is missing, which a migration mends.
            OutboxError::Database(e) if classify(&e) == DbErrorClass::Missing => store_error(e),
            other => match other.class() {
                FailureClass::Unavailable => Self::Unavailable(other.into()),
                FailureClass::Transient => Self::Busy(other.into()),
                FailureClass::Permanent if other.is_caused_by_values() => {
                    Self::Refused(other.into())
                }
                FailureClass::Permanent => Self::Unusable(other.into()),
            },
        }
    }
}

/// Gives the store's error of a failed statement.
pub(crate) fn database(error: DbErr) -> StoreError {
    OutboxError::Database(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_on_seaorm_errors_sees_the_database_s_own() {
        let error: DbErr = OutboxError::Commit(DbErr::RecordNotInserted).into();
        assert_eq!(error, DbErr::RecordNotInserted);
        let error: DbErr = OutboxError::RollbackOnly { function: "charge" }.into();
        assert!(error.to_string().contains("`charge` failed"), "{error}");
    }

    #[test]
    fn a_refusal_of_too_many_waiting_events_is_one_line_of_single_spaces() {
        let text = OutboxError::TooManyWaiting { limit: 3 }.to_string();
        assert!(text.contains("have published some;") && !text.contains("  "), "{text}");
    }
}
