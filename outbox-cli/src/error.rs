//! What can go wrong, and its exit code.

use outbox_core::outbox::StoreError;
use std::process::ExitCode;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The command line or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// Nothing was found.
    #[error("{0}")]
    NotFound(String),
    /// A database could not be opened.
    #[error("the outbox of {database} cannot be opened")]
    Open {
        /// The database's name and URL, without its password.
        database: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A database refused an act, or could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operator did not confirm the act.
    #[error("nothing was done: {0}")]
    NotConfirmed(String),
    /// A relay did not start or did not end well.
    #[error("the relay did not run")]
    Relay(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A measurement failed.
    #[error("the measurement failed")]
    Bench(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The page could not be served.
    #[error("the page is not served")]
    Serve(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The process cannot listen for signals.
    #[error("the process cannot listen for signals")]
    Signals(#[source] std::io::Error),
    /// The output could not be written.
    #[error("the output cannot be written")]
    Output(#[from] std::io::Error),
}

impl CliError {
    /// Gives the exit code; see the crate's documentation.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::NotFound(_) => 1,
            Self::Usage(_) => 2,
            Self::Store(StoreError::Refused(_)) | Self::NotConfirmed(_) => 4,
            Self::Open { .. }
            | Self::Store(_)
            | Self::Relay(_)
            | Self::Bench(_)
            | Self::Serve(_)
            | Self::Signals(_)
            | Self::Output(_) => 3,
        })
    }
}
