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
use outbox_dashboard::{Access, Colour, Dashboard, DashboardError};
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
        ended = dashboard.serve(listener) => ended.map_err(page_fault)?,
        () = signals.stop() => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn not_served(error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    CliError::Serve(Box::new(error))
}

/// Tells a mistake in the logins or the address from a page that could not be served.
fn page_fault(error: DashboardError) -> CliError {
    match error {
        DashboardError::Config(faults) => CliError::Usage(faults.join("; ")),
        DashboardError::NoLogin(address) => CliError::Usage(format!(
            "{address} can be reached from other machines and there is no login: listen on 127.0.0.1, \
             or name a file of logins in the configuration file ([serve] logins = \"logins.toml\")"
        )),
        error => not_served(error),
    }
}

/// Opens the databases. One that cannot be opened is reported, and the page shows the others; the
/// last one is an error where no other is open.
async fn build(global: &Global) -> Result<Dashboard, CliError> {
    let targets = config::served(global)?;
    let mut builder = Dashboard::builder();
    let (mut open, last) = (0, targets.len());
    for (number, target) in (1..).zip(targets) {
        match database::open(&target).await {
            Ok(outbox) => (open, builder) = (open + 1, builder.database(target.name, outbox)),
            Err(error) if open == 0 && number == last => return Err(error),
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
    builder.access(access).build().map_err(page_fault)
}
