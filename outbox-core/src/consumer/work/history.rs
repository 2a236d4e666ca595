//! The runs of one handler with one message, and their errors.

use super::HandlerOutcome;
use crate::{
    failure::{AttemptError, FailureClass},
    outbox::History,
    runtime::now,
};
use std::time::{Duration, Instant};

/// The runs of one handler with one message, counted by the worker that handles the delivery.
#[derive(Default)]
pub(super) struct RunHistory {
    pub(super) history: History,
    /// When the first failure was counted here, and for how long failures had been counted before.
    failing_since: Option<(Instant, Duration)>,
}

impl RunHistory {
    /// Goes on with the history of a stored delivery.
    pub(super) fn of(history: History) -> Self {
        Self { history, failing_since: None }
    }

    /// Counts a run.
    pub(super) fn note(&mut self, outcome: &HandlerOutcome) {
        self.history.attempts += 1;
        let class = match outcome {
            HandlerOutcome::Done | HandlerOutcome::Snoozed(_) | HandlerOutcome::Unknown(_) => {
                return;
            }
            HandlerOutcome::Failed(_) => FailureClass::Transient,
            HandlerOutcome::Rejected(_) | HandlerOutcome::Undecodable(_) => FailureClass::Permanent,
        };
        self.history.failures += 1;
        let (since, before) = *self.failing_since.get_or_insert((now(), self.history.failing_for));
        self.history.failing_for = before + now().duration_since(since);
        let error = AttemptError::new(self.history.attempts, class, text_of(outcome));
        AttemptError::push(&mut self.history.errors, error);
    }
}

/// Makes the error of a message that is given up without a run.
pub(super) fn permanent(reason: &str) -> AttemptError {
    AttemptError::new(1, FailureClass::Permanent, reason)
}

/// Gives the error text of an outcome; empty where the handler did not fail.
pub(super) fn text_of(outcome: &HandlerOutcome) -> String {
    match outcome {
        HandlerOutcome::Failed(text)
        | HandlerOutcome::Rejected(text)
        | HandlerOutcome::Undecodable(text) => text.clone(),
        HandlerOutcome::Done | HandlerOutcome::Snoozed(_) | HandlerOutcome::Unknown(_) => {
            String::new()
        }
    }
}
