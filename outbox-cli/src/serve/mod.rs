//! `serve`: the page for operators, over the databases of the command line.

mod logins;

use crate::{
    args::{Global, Serve},
    config::{self, Environment},
    database,
    error::CliError,
    output::{Output, report},
    signals::Signals,
};
use outbox_dashboard::{Access, Colour, Dashboard};
use std::process::ExitCode;
use tokio::net::TcpListener;

/// Serves the page until a signal asks the process to stop.
pub(crate) async fn run(
    global: &Global,
    arguments: &Serve,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let dashboard = build(global).await?;
    let mut signals = Signals::new()?;
    let listener = TcpListener::bind(arguments.listen).await;
    let listener = listener
        .map_err(|error| CliError::Usage(format!("{} is not free: {error}", arguments.listen)))?;
    let address = listener.local_addr().map_err(not_served)?;
    output.line(format!("the page is at http://{address}/"))?;
    tokio::select! {
        ended = dashboard.serve(listener) => ended.map_err(not_served)?,
        () = signals.stop() => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn not_served(error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    CliError::Serve(Box::new(error))
}

/// Opens the databases. One that cannot be opened is reported, and the page shows the others; it is
/// an error where it is the only one.
async fn build(global: &Global) -> Result<Dashboard, CliError> {
    let targets = config::served(global)?;
    let is_only = targets.len() == 1;
    let mut builder = Dashboard::builder();
    for target in targets {
        match database::open(&target).await {
            Ok(outbox) => builder = builder.database(target.name, outbox),
            Err(error) if is_only => return Err(error),
            Err(error) => report(&error),
        }
    }
    if let Some(Environment { name, production }) = config::environment(global)? {
        builder = builder.environment(name, if production { Colour::Red } else { Colour::Grey });
    }
    let access = match config::logins(global)? {
        Some(file) => logins::read(&file)?,
        None => Access::loopback(),
    };
    builder.access(access).build().map_err(not_served)
}
