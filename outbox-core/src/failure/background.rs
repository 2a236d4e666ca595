//! The log of the framework's own work when it fails: renewals, reads, clean-up.

use super::{Report, ReportBook, full_text};
use crate::runtime::now;
use std::error::Error;

/// The failures of one actor's work, by the name of the work.
#[derive(Debug, Default)]
pub(crate) struct BackgroundWork {
    book: ReportBook<&'static str>,
}

impl BackgroundWork {
    /// Logs that work has failed and is retried: at once, then once a minute.
    pub(crate) fn failed(&self, work: &'static str, error: &(dyn Error + 'static)) {
        let error = full_text(error);
        match self.book.failed(work, &error, now()) {
            Some(Report::Repeated { failures, within }) => {
                tracing::warn!(
                    work,
                    error,
                    failures,
                    ?within,
                    "work of the framework keeps failing; retrying"
                );
            }
            Some(_) => {
                tracing::warn!(work, error, "work of the framework has failed; retrying")
            }
            None => tracing::debug!(work, error, "work of the framework has failed again"),
        }
    }

    /// Logs that it succeeds again.
    pub(crate) fn succeeded(&self, work: &'static str) {
        if let Some(Report::Recovered { failures, after }) = self.book.succeeded(&work, now()) {
            tracing::info!(work, failures, ?after, "work of the framework succeeds again");
        }
    }
}
