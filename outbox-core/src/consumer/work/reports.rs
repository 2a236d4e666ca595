//! The log of a consumer's failures: the first of each kind at once, further ones once a minute, each one
//! at DEBUG.

use super::{HandlerOutcome, Worker};
use crate::{
    event::Message,
    failure::{FailureClass, Report, ReportBook, loggable_text},
    outbox::ConsumerStore,
    runtime::now,
};
use std::sync::Arc;

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::consumer) enum FailureKind {
    HandlerFailed,
    HandlerRejected,
    Undecodable,
    Unreadable,
    Disturbed,
    Returned,
    DatabaseBusy,
    DatabaseFailed,
    NotAcknowledged,
    Slow,
    Overdue,
    LockHeld,
}

impl FailureKind {
    const fn what(self) -> &'static str {
        match self {
            Self::HandlerFailed => "a handler has failed",
            Self::HandlerRejected => "a handler has rejected a message",
            Self::Undecodable => "a message does not decode",
            Self::Unreadable => "a delivery cannot be read",
            Self::Disturbed => {
                "the database has aborted a run; retrying without counting an attempt"
            }
            Self::Returned => {
                "the database has aborted a run; the delivery is returned unless its handler acknowledges it"
            }
            Self::DatabaseBusy => "the database is busy, and the delivery is returned",
            Self::DatabaseFailed => "the database has failed, and the delivery is returned",
            Self::NotAcknowledged => "acknowledging failed; the message will be delivered again",
            Self::Slow => "a handler is slow",
            Self::Overdue => "deliveries are overdue",
            Self::LockHeld => "a handler held the database's only write lock",
        }
    }

    const fn class(self) -> FailureClass {
        match self {
            Self::HandlerRejected | Self::Undecodable | Self::Unreadable => FailureClass::Permanent,
            Self::HandlerFailed | Self::Slow | Self::Overdue | Self::LockHeld => {
                FailureClass::Transient
            }
            Self::Disturbed
            | Self::Returned
            | Self::DatabaseBusy
            | Self::DatabaseFailed
            | Self::NotAcknowledged => FailureClass::Unavailable,
        }
    }
}

/// The failures that a consumer has logged, by kind and handler.
pub(in crate::consumer) type ConsumerReports = ReportBook<(FailureKind, Arc<str>)>;

/// A failure that may have to be logged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failing<'a> {
    pub(super) kind: FailureKind,
    /// Empty where no handler failed.
    pub(super) handler: &'a str,
    pub(super) message: Option<&'a Message>,
    /// Zero where no attempt is counted.
    pub(super) attempt: u32,
    pub(super) error: &'a str,
}

impl<'a> Failing<'a> {
    /// Makes a failure that is no handler's.
    pub(super) const fn of(kind: FailureKind, error: &'a str) -> Self {
        Self { kind, handler: "", message: None, attempt: 0, error }
    }
}

impl<S: ConsumerStore> Worker<S> {
    /// Logs a failure.
    pub(super) fn report(&self, failing: Failing<'_>) {
        let Failing { kind, handler, message, attempt, error } = failing;
        let error = loggable_text(error, kind.class(), message);
        let error = error.as_str();
        let (consumer, what) = (&*self.consumer, kind.what());
        let handler_name = Some(handler).filter(|handler| !handler.is_empty());
        let attempt = Some(attempt).filter(|attempt| *attempt > 0);
        let message_id = message.map(|message| tracing::field::display(message.id));
        let event_type = message.map(|message| message.event_type.as_str());
        let key_hash = message.and_then(Message::key_hash);
        self.note_for_operator(kind, error);
        match self.reports.failed((kind, handler.into()), error, now()) {
            Some(Report::Repeated { failures, within }) => {
                self.report_repeated((kind, handler), failures, within, error)
            }
            Some(_) => tracing::warn!(
                consumer,
                handler = handler_name,
                message_id,
                event_type,
                key_hash,
                attempt,
                error,
                "{what}; further times are summed up once a minute"
            ),
            None => tracing::debug!(
                consumer,
                handler = handler_name,
                message_id,
                event_type,
                key_hash,
                attempt,
                error,
                "{what}"
            ),
        }
    }

    /// Notes a failure of a handler for the consumer's live row.
    fn note_for_operator(&self, kind: FailureKind, error: &str) {
        use FailureKind::{HandlerFailed, HandlerRejected, Undecodable};
        if matches!(kind, HandlerFailed | HandlerRejected | Undecodable) {
            let handled = self.stats.borrow().handled;
            self.operator.note_failure(kind.class(), error, handled);
        }
    }

    /// Tells whether the caller logs an observation about a handler now: the first at once; further ones are
    /// summed up once a minute.
    pub(super) fn starts_report(&self, kind: FailureKind, handler: &str, what: &str) -> bool {
        match self.reports.failed((kind, handler.into()), what, now()) {
            Some(Report::Repeated { failures, within }) => {
                self.report_repeated((kind, handler), failures, within, what);
                false
            }
            report => report.is_some(),
        }
    }

    /// Logs the failures that were only counted so far, where their minute is over.
    pub(in crate::consumer) fn report_due(&self) {
        for ((kind, handler), report, error) in self.reports.due(now()) {
            if let Report::Repeated { failures, within } = report {
                self.report_repeated((kind, &handler), failures, within, &error);
            }
        }
    }

    fn report_repeated(
        &self,
        (kind, handler): (FailureKind, &str),
        failures: u64,
        within: std::time::Duration,
        error: &str,
    ) {
        let (consumer, what) = (&*self.consumer, kind.what());
        let handler = Some(handler).filter(|handler| !handler.is_empty());
        tracing::warn!(consumer, handler, failures, ?within, error, "{what}, repeatedly");
    }

    /// Logs how a run ended.
    pub(super) fn log_outcome(
        &self,
        handler: &str,
        message: &Message,
        attempt: u32,
        outcome: &HandlerOutcome,
    ) {
        let (kind, error) = match outcome {
            HandlerOutcome::Failed(error) => (FailureKind::HandlerFailed, error),
            HandlerOutcome::Rejected(reason) => (FailureKind::HandlerRejected, reason),
            HandlerOutcome::Undecodable(reason) => (FailureKind::Undecodable, reason),
            HandlerOutcome::Done => return tracing::debug!(handler, attempt, "handled"),
            HandlerOutcome::Snoozed(wait) => {
                return tracing::debug!(handler, attempt, ?wait, "a handler asked to be run later");
            }
            HandlerOutcome::Unknown(awaited) => {
                return tracing::debug!(handler, attempt, %awaited, "a message is for another instance");
            }
        };
        self.report(Failing { kind, handler, message: Some(message), attempt, error });
    }
}
