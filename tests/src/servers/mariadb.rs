//! A private MariaDB.

use super::{Probe, Recipe, Server, ServerHome, home::installed};
use rustix::process::Signal;
use std::process::Command;

/// The position of the protocol's version in the greeting: after the length of the packet and its number.
const VERSION_AT: usize = 4;

static RECIPE: Recipe = Recipe {
    name: "MariaDB",
    account: "mysql",
    prepare,
    serve,
    // The server speaks first: the greeting of protocol 10, or an error (0xff).
    probe: Probe { hello: b"", is_answer: |answer| answer.get(VERSION_AT) == Some(&10) },
    url: |port| format!("mysql://root@127.0.0.1:{port}/test"),
    stop: Signal::TERM,
};

/// Starts one, with the user `root`, no password and the database `test`.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start() -> Server {
    start_with(&[]).await
}

/// Starts one with additional arguments, such as `["--max-connections=20"]`.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start_with(settings: &[&str]) -> Server {
    Server::launch(&RECIPE, settings).await
}

fn prepare(home: &ServerHome) -> Vec<Command> {
    let mut command = Command::new(installed("mariadb-install-db", "mariadb-server"));
    command.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
    command.arg(format!("--datadir={}", home.inside("data")));
    vec![command]
}

fn serve(home: &ServerHome) -> Vec<Command> {
    let mut command = Command::new(installed("mariadbd", "mariadb-server"));
    command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
    command.arg(format!("--port={}", home.port()));
    command.arg(format!("--datadir={}", home.inside("data")));
    command.arg(format!("--socket={}", home.inside("socket")));
    // Written to the kernel at each commit, not to the disk: a killed process loses nothing.
    command.args(["--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=64M"]);
    vec![command]
}
