//! Opens the outbox of a database.

use crate::{
    config::Target,
    error::CliError,
    output::warn,
    urls::{check_database, without_unknown},
};
use outbox_sea_orm::Outbox;
use sea_orm::{ConnectOptions, Database, DatabaseConnection};
use std::time::Duration;

/// How long to wait for a database: an operator wants to know soon that it is down.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Connections of one command: its reads follow one another.
const MAX_CONNECTIONS: u32 = 4;

/// Connects to a database.
pub(crate) async fn connect(target: &Target) -> Result<DatabaseConnection, CliError> {
    connect_with(target, MAX_CONNECTIONS).await
}

/// Connects to a database by so many connections at most.
pub(crate) async fn connect_with(
    target: &Target,
    connections: u32,
) -> Result<DatabaseConnection, CliError> {
    check(target)?;
    let (url, ignored) = without_unknown(&target.url);
    for parameter in ignored {
        let name = &target.name;
        warn(&format!(
            "the URL of the database `{name}` has a parameter {parameter}: it is ignored"
        ));
    }
    let mut options = ConnectOptions::new(url);
    options
        .sqlx_logging(false)
        .max_connections(connections)
        .connect_timeout(CONNECT_WITHIN)
        .acquire_timeout(CONNECT_WITHIN);
    Database::connect(options).await.map_err(|error| open_error(target, error))
}

/// Checks the URL of a database, which is not opened.
pub(crate) fn check(target: &Target) -> Result<(), CliError> {
    check_database(&target.url)
        .map_err(|why| CliError::Usage(format!("the URL of the database `{}`: {why}", target.name)))
}

/// Opens the outbox of a database; its tables must exist.
pub(crate) async fn open(target: &Target) -> Result<Outbox, CliError> {
    let db = connect(target).await?;
    let outbox = Outbox::builder(db).namespace(&target.namespace).build().await;
    outbox.map_err(|error| open_error(target, error))
}

/// Tells which database could not be opened.
pub(crate) fn open_error(
    target: &Target,
    error: impl std::error::Error + Send + Sync + 'static,
) -> CliError {
    CliError::Open { database: target.to_string(), source: Box::new(error) }
}
