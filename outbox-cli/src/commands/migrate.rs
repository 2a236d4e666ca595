//! `migrate`: the outbox's tables.

use crate::{
    args::{Global, Migrate},
    config, database,
    error::CliError,
    output::{Answer, Output, warn},
};
use outbox_core::failure::full_text;
use outbox_sea_orm::{Namespace, Outbox, Schema};
use serde::Serialize;
use std::process::ExitCode;

/// Whether the tables of an outbox are those of this program.
#[derive(Debug, Serialize)]
struct Tables {
    /// The version that this program needs.
    needs: i32,
    /// Whether the tables have it.
    fits: bool,
    /// What is wrong; `None` where nothing is.
    fault: Option<String>,
}

impl Tables {
    fn with(fault: Option<String>) -> Self {
        Self { needs: Schema::VERSION, fits: fault.is_none(), fault }
    }
}

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
    if output.json {
        output.document(&Answer { database: &target.name, result: Tables::with(None) })?;
    } else {
        output.line(format!("{target}: version {}", Schema::VERSION))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows whether the tables are those of this program; exit code 1 where one is not.
async fn check(global: &Global, output: &mut Output) -> Result<ExitCode, CliError> {
    let mut all = Vec::new();
    for target in config::targets(global)? {
        let db = database::connect(&target).await?;
        let built = Outbox::builder(db).namespace(&target.namespace).build().await;
        let fault = built.err().map(|error| full_text(&error));
        match &fault {
            _ if output.json => {}
            None => output
                .line(format!("{target}: version {}, as this program needs", Schema::VERSION))?,
            Some(fault) => warn(&format!("{target}: {fault}")),
        }
        all.push((target, Tables::with(fault)));
    }
    if output.json {
        let answers: Vec<Answer<'_, &Tables>> =
            all.iter().map(|(target, result)| Answer { database: &target.name, result }).collect();
        output.document(&answers)?;
    }
    Ok(ExitCode::from(u8::from(all.iter().any(|(_, tables)| !tables.fits))))
}
