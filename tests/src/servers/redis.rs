//! A private Redis.

use super::{Probe, Recipe, Server, ServerHome, home::installed};
use rustix::process::Signal;
use std::process::Command;

static RECIPE: Recipe = Recipe {
    name: "Redis",
    account: "redis",
    prepare: |_| Vec::new(),
    serve,
    // While it loads its data it answers `-LOADING`.
    probe: Probe { hello: b"PING\r\n", is_answer: |answer| answer.starts_with(b"+PONG") },
    url: |port| format!("redis://127.0.0.1:{port}"),
    stop: Signal::TERM,
};

/// Starts one that keeps every answered write over a kill.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start() -> Server {
    start_with(&[]).await
}

/// Starts one with additional arguments, such as `["--maxmemory", "8mb"]`.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start_with(settings: &[&str]) -> Server {
    Server::launch(&RECIPE, settings).await
}

fn serve(home: &ServerHome) -> Vec<Command> {
    let mut command = Command::new(installed("redis-server", "redis-server"));
    command.args(["--bind", "127.0.0.1", "--port", &home.port().to_string()]);
    command.args([
        "--dir",
        &home.inside(""),
        "--appendonly",
        "yes",
        "--appendfsync",
        "everysec",
        "--save",
        "",
    ]);
    vec![command]
}
