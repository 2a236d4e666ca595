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
    signals::{Asks, Signals},
};
use file::File;
use metrics::Listener;
use outbox_sea_orm::{Outbox, relay::Relay};
use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};
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
    Reload(Box<File>, Option<Arc<Listener>>),
}

/// Runs relay after relay, one for each content of the file.
async fn serve(path: &Path, mut file: File) -> Result<ExitCode, CliError> {
    let mut signals = Signals::new()?;
    // Before the relay: one that cannot be looked at does not start.
    let mut listener = Listener::of(file.metrics.as_ref(), None)?;
    loop {
        let (relay, outbox) = start(&file).await?;
        let _metrics = listener.as_ref().map(|it| it.serve(&relay, outbox)).transpose()?;
        let stopped = relay.shutdown_signal();
        let mut finished = std::pin::pin!(relay.finished());
        let end = loop {
            tokio::select! {
                ended = &mut finished => {
                    ended.map_err(|error| CliError::Relay(Box::new(error)))?;
                    return Err(CliError::Relay("it ended by itself".into()));
                }
                asks = signals.next() => match (asks, File::read(path)) {
                    (Asks::Stop, _) => break End::Stop,
                    (Asks::HangUp, Err(error)) => {
                        warn(&format!("the relay goes on with its former file: {error}"));
                    }
                    (Asks::HangUp, Ok(new)) if new == file => {}
                    (Asks::HangUp, Ok(new)) => match prepare(&new, listener.as_ref()) {
                        Ok(next) => break End::Reload(Box::new(new), next),
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
            End::Reload(new, next) => (file, listener) = (*new, next),
        }
    }
}

/// Finds what is wrong with a new file while the former relay goes on; gives where its metrics are
/// served.
fn prepare(file: &File, former: Option<&Arc<Listener>>) -> Result<Option<Arc<Listener>>, CliError> {
    routes::build(file)?;
    Listener::of(file.metrics.as_ref(), former)
}

/// Starts a relay.
async fn start(file: &File) -> Result<(Relay, Outbox), CliError> {
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
    Ok((relay, outbox))
}
