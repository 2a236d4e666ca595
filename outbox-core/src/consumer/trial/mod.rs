//! A try of a handler on the message of a dead letter, in a transaction that is rolled back: what a
//! redrive would do, before somebody redrives.

mod run;

use super::{handle::Consumer, work::Worker};
use crate::{
    failure::DeadLetter,
    outbox::{ConsumerStore, StoreError, TableChange},
    runtime::{Exit, spawn},
};
use run::Tries;
use serde::Serialize;
use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::Mutex;

/// Longest run of a handler that is tried.
const LIMIT: Duration = Duration::from_secs(5);
/// Events that a try names; further ones are counted.
const MOST_EVENTS: usize = 100;
/// Longest text of a try, in bytes.
const LONGEST_TEXT: usize = 2_000;

/// How a tried handler ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum TrialResult {
    /// It returned `Ok`, and its transaction could have been committed.
    Done,
    /// It returned an error that is retried, it panicked, or the commit would have failed.
    Failed,
    /// It did not end within 5 s.
    TimedOut,
    /// It rejected the message, or the command: a redrive would write another dead letter, or send
    /// the rejection.
    Rejected,
    /// The message does not decode as the handler's event.
    Undecodable,
    /// It asked to run again later.
    Snoozed,
    /// Only an instance of another version knows the message.
    Unknown,
}

/// An event that a tried handler would have emitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrialEvent {
    /// Its topic.
    pub topic: String,
    /// Its type.
    pub event_type: String,
    /// Its key.
    pub key: Option<String>,
}

/// What a try of a handler has shown. Everything that went through its transaction is rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// The consumer.
    pub consumer: String,
    /// The handler.
    pub handler: String,
    /// How it ended.
    pub result: TrialResult,
    /// What it returned, in words; empty for `Ok`.
    pub text: String,
    /// The tables that it changed through `cx.tx`, with the rows of each. Empty also where it wrote
    /// by another connection, which a try does not see.
    pub tables: Vec<TableChange>,
    /// The events that it would have emitted, the first 100.
    pub events: Vec<TrialEvent>,
    /// How many events it would have emitted.
    pub emitted: u64,
    /// Calls that were refused, as a rollback would not undo them: `Outbox::begin`, or the name of
    /// a `requires_new` function.
    pub refused: Vec<String>,
    /// How long it ran, in milliseconds.
    pub took_ms: u64,
    /// What the try could not show or undo, in sentences.
    pub notes: Vec<String>,
}

/// Why a letter is not tried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrialRefusal {
    /// A route gave the event up, and no handler of a consumer.
    #[error(
        "it is a letter of route `{route}`: only letters of a consumer have a handler to try them with"
    )]
    OfRoute {
        /// The route.
        route: String,
    },
    /// Another consumer gave the message up.
    #[error(
        "it is a letter of consumer `{consumer}`: try it in a process in which that consumer runs"
    )]
    OtherConsumer {
        /// The consumer.
        consumer: String,
    },
    /// The consumer has no handler of this name.
    #[error(
        "this instance of the consumer has no handler `{handler}`: try the letter where a version with that handler runs"
    )]
    NoHandler {
        /// The handler's name; empty where none took the message.
        handler: String,
    },
    /// The letter has no message: it did not decode, or its content was purged.
    #[error("the letter has no message: it did not decode, or its content was purged")]
    NoMessage,
    /// The message ended its process each time.
    #[error("the message ended its process each time it was handled, and a try would end this one")]
    Crashed,
    /// The handler says that it must not be tried.
    #[error("the handler `{handler}` must not be tried: {reason}")]
    NoTry {
        /// The handler.
        handler: String,
        /// The reason that its options give.
        reason: &'static str,
    },
    /// The consumer has ended.
    #[error("the consumer has ended")]
    Ended,
    /// The store cannot try handlers.
    #[error("this store has no transaction that can be tried")]
    Unsupported,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Tries the handlers of one consumer, also after its [`Consumer`] was moved: for a page of an
/// operator inside the service. Clones share the consumer.
#[derive(Clone)]
pub struct HandlerTrials {
    consumer: Arc<str>,
    tries: Weak<dyn Tries>,
    /// One try at a time: it takes a connection of the consumer's own.
    one: Arc<Mutex<()>>,
}

impl fmt::Debug for HandlerTrials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerTrials").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

impl HandlerTrials {
    pub(super) fn of<S: ConsumerStore>(worker: &Arc<Worker<S>>) -> Self {
        let tries: Weak<dyn Tries> = Arc::downgrade(worker) as _;
        Self { consumer: worker.consumer.clone(), tries, one: Arc::default() }
    }

    /// Gives the consumer's name.
    #[must_use]
    pub fn consumer(&self) -> &str {
        &self.consumer
    }

    /// Tries a letter's handler; see [`Consumer::try_handle`].
    ///
    /// # Errors
    /// [`TrialRefusal`] where nothing was run.
    ///
    /// # Cancel safety
    /// Dropped, a try that has begun goes on to its end, and is rolled back.
    pub async fn try_handle(&self, letter: &DeadLetter) -> Result<Trial, TrialRefusal> {
        let (tries, one, letter) = (self.tries.clone(), self.one.clone(), letter.clone());
        let trial = async move {
            let _one = one.lock().await;
            match tries.upgrade() {
                Some(tries) => tries.try_letter(letter).await,
                None => Err(TrialRefusal::Ended),
            }
        };
        // On a task of its own: what ends the transaction gives the connection its limits back.
        match spawn(trial).await {
            Exit::Finished(trial) => trial,
            Exit::Panicked(_) | Exit::Cancelled => Err(TrialRefusal::Ended),
        }
    }
}

impl Consumer {
    /// Tries the handler of a dead letter on its message, in a transaction that is rolled back, and
    /// tells what it returned, which tables it changed, which events it would have emitted and how
    /// long it took. Hooks and listeners before the commit run, none after it. The handler has 5 s,
    /// and waits for locks for a second each.
    ///
    /// Only what goes through `cx.tx` is rolled back. Statements through it that end a transaction,
    /// or that no rollback undoes, are refused; a stored procedure that commits is not seen before
    /// it has run, and a note tells of it. What leaves by another connection or by the network has
    /// happened: say so with
    /// [`no_try`](super::HandlerOptions::no_try), and the handler is not tried. Inside of a try,
    /// `requires_new` and `begin` of the same outbox are refused.
    ///
    /// ```
    /// # use outbox_core::{consumer::{Consumer, TrialRefusal}, failure::DeadLetter};
    /// # async fn example(consumer: &Consumer, letter: &DeadLetter) -> Result<(), TrialRefusal> {
    /// let trial = consumer.try_handle(letter).await?;
    /// println!("{:?} after {} ms: {}", trial.result, trial.took_ms, trial.text);
    /// for change in &trial.tables {
    ///     println!("  {}: {:?} rows", change.table.as_deref().unwrap_or("unknown"), change.rows);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`TrialRefusal`] where nothing was run.
    ///
    /// # Cancel safety
    /// Dropped, a try that has begun goes on to its end, and is rolled back.
    pub async fn try_handle(&self, letter: &DeadLetter) -> Result<Trial, TrialRefusal> {
        self.trials().try_handle(letter).await
    }
}
