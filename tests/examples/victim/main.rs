//! A process to be killed: its argument configures it, and it prints a line for each thing that happens.
#![expect(clippy::print_stdout, reason = "its lines are what the test waits for")]
#![expect(
    clippy::unwrap_used,
    reason = "a tool of tests: what goes wrong ends it, and the test shows it"
)]

#[path = "../../tests/story/support/event.rs"]
mod event;
#[path = "../../tests/story/support/handlers.rs"]
mod handlers;
#[cfg(feature = "kafka")]
#[path = "../../tests/story/support/kafka.rs"]
mod kafka;
mod link;
#[path = "../../tests/story/support/mqtt.rs"]
mod mqtt;
#[path = "../../tests/story/support/config.rs"]
mod config;
mod run;
mod stop;
#[path = "../../tests/story/support/wire.rs"]
mod wire;

use config::VictimConfig;
use std::{io::IsTerminal, process::ExitCode};

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let config: VictimConfig = serde_json::from_str(&std::env::args().nth(1).unwrap()).unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(std::io::stdout().is_terminal());
    subscriber.init();
    if let Some((point, nth)) = &config.stops_at {
        stop::at(point, *nth);
    }
    run::run(config).await
}
