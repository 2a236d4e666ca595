//! A private NATS with JetStream.

use super::{Probe, Recipe, Server, ServerHome, home::installed};
use rustix::process::Signal;
use std::process::Command;

static RECIPE: Recipe = Recipe {
    name: "NATS",
    account: "nats",
    prepare: |_| Vec::new(),
    serve,
    // It speaks first, and listens for clients when JetStream is up.
    probe: Probe { hello: b"", is_answer: |answer| answer.starts_with(b"INFO {") },
    url: |port| format!("nats://127.0.0.1:{port}"),
    stop: Signal::TERM,
};

/// Starts one.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start() -> Server {
    start_with(&[]).await
}

/// Starts one with additional arguments, such as `["--config", path]`.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start_with(settings: &[&str]) -> Server {
    Server::launch(&RECIPE, settings).await
}

fn serve(home: &ServerHome) -> Vec<Command> {
    let mut command = Command::new(installed("nats-server", "nats-server"));
    command.args(["--addr", "127.0.0.1", "--port", &home.port().to_string()]);
    command.args(["--jetstream", "--store_dir", &home.inside("jetstream")]);
    vec![command]
}
