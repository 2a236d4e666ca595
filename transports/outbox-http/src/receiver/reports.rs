//! Logs of refused requests: the first of each status at once, further ones once a minute.

use super::{endpoint::BUSY, refusal::Refusal};
use http::StatusCode;
use outbox_core::{
    failure::{Report, ReportBook},
    runtime::now,
};

/// Counts of refused requests and when they were logged, by status.
#[derive(Debug, Default)]
pub(super) struct RefusalReports {
    /// The receiver's path; not shown for an unsigned receiver, where knowing the path is enough to
    /// send events.
    path: String,
    book: ReportBook<u16>,
}

impl RefusalReports {
    pub(super) fn new(path: &str, unsigned: bool) -> Self {
        let path = if unsigned { "not shown: the receiver is unsigned" } else { path };
        Self { path: path.to_owned(), book: ReportBook::default() }
    }

    /// Logs a refused request. Of what the sender wrote, the line has at most the name of an
    /// unreadable attribute.
    pub(super) fn report(&self, refusal: &Refusal) {
        let (path, status, reason) = (&*self.path, refusal.status.as_u16(), &*refusal.reason);
        let Some(next) = remedy(refusal) else {
            return tracing::debug!(path, status, "a request was not confirmed");
        };
        match self.book.failed(status, reason, now()) {
            Some(Report::Repeated { failures, within }) => {
                tracing::warn!(
                    path,
                    status,
                    reason,
                    next,
                    failures,
                    ?within,
                    "the receiver goes on refusing requests"
                );
            }
            Some(_) => tracing::warn!(
                path,
                status,
                reason,
                next,
                "the receiver has refused a request; further ones are summed up once a minute"
            ),
            None => tracing::debug!(path, status, "a request was not confirmed"),
        }
    }
}

/// Says what the operator can do; `None` where a handler refused, which its consumer logs, or where
/// the receiver is closed.
fn remedy(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal.status {
        StatusCode::UNAUTHORIZED => {
            "give the sender's `signed(..)` and the receiver's `verify(..)` the same secret, and both hosts the right time"
        }
        StatusCode::SERVICE_UNAVAILABLE if refusal.reason == BUSY => {
            "raise `max_in_flight`, or make the handlers faster"
        }
        StatusCode::GATEWAY_TIMEOUT => {
            "make the handlers faster, or raise `respond_within` and the sender's timeout"
        }
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::SERVICE_UNAVAILABLE => return None,
        _ => "compare what the sender publishes with what this receiver is configured to accept",
    })
}
