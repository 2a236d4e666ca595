//! Findings about an outbox's surroundings: what is wrong, how bad it is, and what to do.

use crate::outbox::StoreError;
use async_trait::async_trait;
use serde::Serialize;
use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A check that found nothing wrong.
    Ok,
    /// Worth knowing.
    Info,
    /// It will hurt.
    Warning,
    /// It loses data, or nothing moves.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The stable name of the check, such as `open-transaction`.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, in a sentence.
    pub what: String,
    /// What to do; empty where nothing is wrong.
    pub to_do: String,
    /// The query or setting that shows it.
    pub seen_by: String,
}

/// Examines an outbox and its database.
#[async_trait]
pub trait DoctorStore: Send + Sync + 'static {
    /// Runs all checks, the worst findings first. A check that fails is a finding, not an error.
    async fn findings(&self) -> Result<Vec<Finding>, StoreError>;
}
