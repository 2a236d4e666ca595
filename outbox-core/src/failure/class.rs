//! The three classes of failure, on which every other decision depends.

use crate::event::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What a failure shows of the message and of its destination.
///
/// ```
/// # use outbox_core::{failure::FailureClass, transport::PublishError};
/// let error = PublishError::unavailable("connection refused");
/// assert_eq!(error.class(), FailureClass::Unavailable); // no attempt is counted
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// This message can never be delivered: it becomes a dead letter.
    Permanent,
    /// This message may be delivered later: the attempt counts.
    Transient,
    /// The destination is down: no attempt counts, and the route pauses.
    Unavailable,
}

impl FailureClass {
    /// Gives the name that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FailureClass {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        [Self::Permanent, Self::Transient, Self::Unavailable]
            .into_iter()
            .find(|c| c.as_str() == s)
            .ok_or(())
    }
}

/// One failed attempt, as it is stored with the event: data, bounded, without payload.
///
/// ```
/// # use outbox_core::failure::{AttemptError, FailureClass};
/// let mut history = Vec::new();
/// for attempt in 1..=20 {
///     AttemptError::push(&mut history, AttemptError::new(attempt, FailureClass::Transient, "busy"));
/// }
/// assert_eq!((history.len(), history[0].attempt, history[9].attempt), (10, 1, 20));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptError {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Its class.
    pub class: FailureClass,
    /// The error's text, at most [`AttemptError::MAX_TEXT`] bytes.
    pub text: String,
    /// When, in microseconds since 1970-01-01 UTC, by the database's clock; zero until it is stored.
    #[serde(default)]
    pub at: i64,
}

impl AttemptError {
    /// Longest text kept of one error: enough for a status line and a cause, small enough for ten of them in a row.
    pub const MAX_TEXT: usize = 1024;
    /// How many errors of one event are kept: the first and the last nine.
    pub const MAX_KEPT: usize = 10;

    /// Makes one, cutting the text at a character.
    #[must_use]
    pub fn new(attempt: u32, class: FailureClass, text: impl Into<String>) -> Self {
        let mut text: String = text.into();
        if text.len() > Self::MAX_TEXT {
            let mut end = Self::MAX_TEXT;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
        Self { attempt, class, text, at: 0 }
    }

    /// Adds one to a history, keeping the first and the last nine.
    pub fn push(history: &mut Vec<Self>, error: Self) {
        if history.len() >= Self::MAX_KEPT {
            history.remove(1);
        }
        history.push(error);
    }

    /// When it happened.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        Timestamp::from_micros(self.at)
    }
}
