//! A private PostgreSQL.

use super::{Probe, Recipe, Server, ServerHome, home::installed};
use rustix::process::Signal;
use std::process::Command;

static RECIPE: Recipe = Recipe {
    name: "PostgreSQL",
    account: "postgres",
    prepare,
    serve,
    // A startup message of protocol 3.0; `R` asks for authentication, which a starting server does not come to.
    probe: Probe {
        hello: b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0",
        is_answer: |answer| answer.starts_with(b"R"),
    },
    url: |port| format!("postgres://postgres@127.0.0.1:{port}/postgres"),
    // "Fast": ends open transactions and writes a checkpoint.
    stop: Signal::INT,
};

/// Starts one, with the superuser `postgres` and no password.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start() -> Server {
    start_with(&[]).await
}

/// Starts one with additional arguments, such as `["-c", "max_connections=20"]`.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start_with(settings: &[&str]) -> Server {
    Server::launch(&RECIPE, settings).await
}

fn prepare(home: &ServerHome) -> Vec<Command> {
    let mut command = Command::new(installed("initdb", "postgresql"));
    command.args([
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    ]);
    command.arg(home.inside("data"));
    vec![command]
}

fn serve(home: &ServerHome) -> Vec<Command> {
    let mut command = Command::new(installed("postgres", "postgresql"));
    command.args(["-D", &home.inside("data"), "-p", &home.port().to_string()]);
    command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
    // What a killed process has written is with the kernel; fsync matters only when the machine goes.
    command.args(["-c", "fsync=off"]);
    vec![command]
}
