//! `relay`: a relay process from one TOML file. SIGHUP reads the file again; SIGTERM and Ctrl-C stop
//! the relay in order.

mod file;
mod metrics;
mod routes;

use crate::{
    args::Relay as Arguments,
    config::Target,
    database,
    error::CliError,
    output::{Output, shown, warn},
};
use file::File;
use outbox_sea_orm::{Outbox, relay::Relay};
use std::{path::Path, process::ExitCode, time::Duration};
use tracing_subscriber::EnvFilter;

/// How long a relay may take to publish what it has in hand when it is stopped.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// Checks the file, or runs its relay until it is stopped.
pub(crate) async fn run(arguments: &Arguments, output: &mut Output) -> Result<ExitCode, CliError> {
    let file = File::read(&arguments.file)?;
    if arguments.check {
        routes::build(&file)?;
        output.line(format!(
            "{}: {} routes on {}",
            arguments.file.display(),
            file.route.len(),
            shown(&target(&file).to_string())
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    tracing_subscriber::fmt().with_env_filter(log_filter()).with_writer(std::io::stderr).init();
    // The program has no other use of TLS before this; a provider that is set already is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    serve(&arguments.file, file).await
}

/// Gives what is logged: by `RUST_LOG`, but not the spans in which SeaORM shows the URL that it
/// connects to.
fn log_filter() -> EnvFilter {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    ["postgres", "mysql", "sqlite"].iter().fold(filter, |filter, driver| {
        let quiet = format!("sea_orm::driver::sqlx_{driver}=debug").parse();
        filter.add_directive(quiet.expect("a target and a level"))
    })
}

fn target(file: &File) -> Target {
    Target {
        name: "the relay's outbox".to_owned(),
        url: file.outbox.database.clone(),
        namespace: file.outbox.namespace.clone(),
        production: false,
    }
}

/// Why a relay ends.
enum End {
    Stop,
    Reload(Box<File>),
}

/// Runs relay after relay, one for each content of the file.
async fn serve(path: &Path, mut file: File) -> Result<ExitCode, CliError> {
    let mut signals = Signals::new()?;
    loop {
        let (relay, _metrics) = start(&file).await?;
        let stopped = relay.shutdown_signal();
        let mut finished = std::pin::pin!(relay.finished());
        let end = loop {
            tokio::select! {
                ended = &mut finished => {
                    ended.map_err(|error| CliError::Relay(Box::new(error)))?;
                    return Err(CliError::Relay("it ended by itself".into()));
                }
                reload = signals.next() => match (reload, File::read(path)) {
                    (false, _) => break End::Stop,
                    (true, Err(error)) => {
                        warn(&format!("the relay goes on with its former file: {error}"));
                    }
                    (true, Ok(new)) if new == file => {}
                    (true, Ok(new)) => match routes::build(&new) {
                        Ok(_) => break End::Reload(Box::new(new)),
                        Err(error) => {
                            warn(&format!("the relay goes on with its former file: {error}"));
                        }
                    },
                }
            }
        };
        stopped.request(STOP_WITHIN);
        finished.await.map_err(|error| CliError::Relay(Box::new(error)))?;
        match end {
            End::Stop => return Ok(ExitCode::SUCCESS),
            End::Reload(new) => file = *new,
        }
    }
}

/// Starts a relay, and the server of its metrics where the file asks for it.
async fn start(file: &File) -> Result<(Relay, Option<metrics::Server>), CliError> {
    let target = target(file);
    let db = database::connect(&target).await?;
    let mut builder = Outbox::builder(db).namespace(&target.namespace);
    if file.outbox.behind_pooler {
        builder = builder.behind_pooler();
    }
    let outbox = builder.build().await.map_err(|error| database::open_error(&target, error))?;
    let mut relay = Relay::builder(&outbox);
    if let Some(lease) = file.outbox.lease {
        relay = relay.lease(lease.0);
    }
    for route in routes::build(file)? {
        relay = relay.add_route(route);
    }
    let relay = relay.start().await.map_err(|error| CliError::Relay(Box::new(error)))?;
    let metrics = match &file.metrics {
        Some(part) => Some(metrics::Server::start(part.listen, &relay, outbox).await?),
        None => None,
    };
    Ok((relay, metrics))
}

/// The signals that a relay process obeys.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Result<Self, CliError> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal; `true` for the one that reads the file again.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => false,
            _ = self.hang_up.recv() => true,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Result<Self, CliError> {
        Ok(Self)
    }

    async fn next(&mut self) -> bool {
        // A process that cannot listen for Ctrl-C stops.
        let _ = tokio::signal::ctrl_c().await;
        false
    }
}
