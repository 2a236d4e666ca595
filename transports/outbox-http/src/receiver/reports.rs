//! What is logged of requests that are not taken: the first of each status at once, further ones once a minute.

use super::{desk::BUSY, refusal::Refusal};
use http::StatusCode;
use outbox_core::{
    failure::{Report, ReportBook},
    runtime::now,
};

/// What was logged of refused requests, by status.
#[derive(Debug, Default)]
pub(super) struct RefusalReports {
    /// Where the receiver takes requests; not shown where whoever knows it is let in.
    path: String,
    book: ReportBook<u16>,
}

impl RefusalReports {
    pub(super) fn new(path: &str, unsigned: bool) -> Self {
        let path = if unsigned { "not shown: the receiver is unsigned" } else { path };
        Self { path: path.to_owned(), book: ReportBook::default() }
    }

    /// Logs a refused request, without what its sender has said but for the name of an attribute that cannot be read.
    pub(super) fn report(&self, refusal: &Refusal) {
        let (path, status, reason) = (&*self.path, refusal.status.as_u16(), &*refusal.reason);
        let Some(next) = what_to_do(refusal) else {
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

/// Says what helps; `None` where the refusal is a handler's, whose consumer logs it, or the receiver's end.
fn what_to_do(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal.status {
        StatusCode::UNAUTHORIZED => {
            "give the sender's `signed(..)` and the receiver's `verify(..)` the same secret, and both hosts the right time"
        }
        StatusCode::SERVICE_UNAVAILABLE if refusal.reason == BUSY => {
            "raise `max_in_flight`, or make the handlers faster"
        }
        StatusCode::GATEWAY_TIMEOUT => {
            "make the handlers faster, or raise `answer_within` and the sender's timeout"
        }
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::SERVICE_UNAVAILABLE => return None,
        _ => "look at what the sender publishes and at what this receiver is told to take",
    })
}
