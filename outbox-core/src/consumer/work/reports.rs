//! What is logged of a consumer's failures: the first of each kind at once, further ones once a minute, each one at DEBUG.

use super::{Verdict, Worker};
use crate::{
    event::Message,
    failure::{Report, ReportBook},
    outbox::ConsumerStore,
    runtime::now,
};
use std::sync::Arc;

/// What fails.
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
                "the database has disturbed a run, which is made again without counting an attempt"
            }
            Self::Returned => {
                "the database has disturbed a run, and the delivery is returned unless its handler answers for it"
            }
            Self::DatabaseBusy => "the database is busy, and the delivery is returned",
            Self::DatabaseFailed => "the database has failed, and the delivery is returned",
            Self::NotAcknowledged => {
                "the transport could not be told of an outcome, and the message will come again"
            }
            Self::Slow => "a handler is slow",
            Self::Overdue => "deliveries are in hand for long",
            Self::LockHeld => "a handler held the database's only write lock",
        }
    }
}

/// What was logged of a consumer, by handler where it is one that fails.
pub(in crate::consumer) type ConsumerReports = ReportBook<(FailureKind, Arc<str>)>;

/// A failure that may have to be logged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failing<'a> {
    pub(super) kind: FailureKind,
    /// Empty where it is no handler's.
    pub(super) handler: &'a str,
    pub(super) message: Option<&'a Message>,
    /// Zero where none is counted.
    pub(super) attempt: u32,
    pub(super) error: &'a str,
}

impl<'a> Failing<'a> {
    /// A failure that is no handler's.
    pub(super) const fn of(kind: FailureKind, error: &'a str) -> Self {
        Self { kind, handler: "", message: None, attempt: 0, error }
    }
}

impl<S: ConsumerStore> Worker<S> {
    /// Logs a failure.
    pub(super) fn report(&self, failing: Failing<'_>) {
        let Failing { kind, handler, message, attempt, error } = failing;
        let (consumer, what) = (&*self.consumer, kind.what());
        let handler_name = Some(handler).filter(|handler| !handler.is_empty());
        let attempt = Some(attempt).filter(|attempt| *attempt > 0);
        let message_id = message.map(|message| tracing::field::display(message.id));
        let event_type = message.map(|message| message.event_type.as_str());
        let key_hash = message.and_then(Message::key_hash);
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

    /// Tells whether something of a handler is to be told now: once at once, and then summed up once a minute.
    pub(super) fn tells(&self, kind: FailureKind, handler: &str, what: &str) -> bool {
        match self.reports.failed((kind, handler.into()), what, now()) {
            Some(Report::Repeated { failures, within }) => {
                self.report_repeated((kind, handler), failures, within, what);
                false
            }
            report => report.is_some(),
        }
    }

    /// Logs failures that were only counted so far, where their minute is over.
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
        tracing::warn!(consumer, handler, failures, ?within, error, "{what}, again and again");
    }

    /// Logs how a run ended.
    pub(super) fn log_verdict(
        &self,
        handler: &str,
        message: &Message,
        attempt: u32,
        verdict: &Verdict,
    ) {
        let (kind, error) = match verdict {
            Verdict::Failed(error) => (FailureKind::HandlerFailed, error),
            Verdict::Rejected(reason) => (FailureKind::HandlerRejected, reason),
            Verdict::Undecodable(reason) => (FailureKind::Undecodable, reason),
            Verdict::Done => return tracing::debug!(handler, attempt, "handled"),
            Verdict::Snoozed(wait) => {
                return tracing::debug!(handler, attempt, ?wait, "a handler asked to be run later");
            }
            Verdict::Unknown(awaited) => {
                return tracing::debug!(handler, attempt, %awaited, "a message is for another instance");
            }
        };
        self.report(Failing { kind, handler, message: Some(message), attempt, error });
    }
}
