//! The command line `outbox`: it shows what stands still in an outbox and why, and moves it.
//!
//! It has no rule of its own: it asks the [operator's interface](outbox_core::admin) of each database
//! and writes the answers as tables for people, or as JSON with `--json`.
//!
//! | exit code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | nothing was found, or `doctor` and `migrate check` found something wrong |
//! | 2 | the command line or the configuration is wrong |
//! | 3 | a database could not be reached or asked |
//! | 4 | the act was refused, or not confirmed |
//! | 5 | the act was cancelled, or stopped by its canary |

mod args;
mod urls;
mod file_fault;
mod config;
mod database;
mod error;
mod output;
mod signals;
mod commands;
mod relay;
mod serve;

pub use args::Cli;
pub use error::CliError;

use output::Output;
use std::process::ExitCode;

/// Runs one command, and writes what went wrong to the standard error.
pub async fn run(cli: Cli) -> ExitCode {
    let mut output = Output::stdout(cli.global.json);
    match commands::run(cli, &mut output).await {
        Ok(code) => code,
        Err(error) => {
            output::report(&error);
            error.exit_code()
        }
    }
}
