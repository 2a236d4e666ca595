//! `migrate`: the outbox's tables.

use crate::{
    args::{Global, Migrate},
    config, database,
    error::CliError,
    output::{Output, warn},
};
use outbox_core::failure::full_text;
use outbox_sea_orm::{Namespace, Outbox, Schema};
use std::process::ExitCode;

/// Runs a command about the tables.
pub(super) async fn run(
    global: &Global,
    command: Migrate,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    match command {
        Migrate::Up { partitions } => up(global, partitions, output).await,
        Migrate::Status => check(global, output).await.map(|_| ExitCode::SUCCESS),
        Migrate::Check => check(global, output).await,
        Migrate::Sql { dialect, from, to, partitions } => {
            let namespace = match global.namespace.as_deref() {
                None | Some("") => Namespace::default(),
                Some(prefix) => {
                    Namespace::new(prefix).map_err(|error| CliError::Usage(error.to_string()))?
                }
            };
            let to = to.unwrap_or(Schema::VERSION);
            let sql = Schema::sql(dialect, &namespace, partitions, from, to)
                .map_err(|error| CliError::Usage(error.to_string()))?;
            output.line(sql.trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn up(global: &Global, partitions: u16, output: &mut Output) -> Result<ExitCode, CliError> {
    let target = config::target(global)?;
    super::act::confirm(global, &target, "create the outbox's tables or bring them up to date?")?;
    let db = database::connect(&target).await?;
    let outbox = Outbox::builder(db).namespace(&target.namespace).partitions(partitions);
    outbox.install().await.map_err(|error| database::open_error(&target, error))?;
    output.line(format!("{target}: version {}", Schema::VERSION))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows whether the tables are those of this program; exit code 1 where one is not.
async fn check(global: &Global, output: &mut Output) -> Result<ExitCode, CliError> {
    let mut wrong = false;
    for target in config::targets(global)? {
        let db = database::connect(&target).await?;
        match Outbox::builder(db).namespace(&target.namespace).build().await {
            Ok(_) => output
                .line(format!("{target}: version {}, as this program needs", Schema::VERSION))?,
            Err(error) => {
                wrong = true;
                warn(&format!("{target}: {}", full_text(&error)));
            }
        }
    }
    Ok(ExitCode::from(u8::from(wrong)))
}
