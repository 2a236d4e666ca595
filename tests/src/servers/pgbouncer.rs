//! A private PgBouncer before the shared PostgreSQL, which gives a connection to another client after each transaction.

use super::{Probe, Recipe, Server, ServerHome, home::installed};
use crate::databases::Database;
use rustix::process::Signal;
use std::{env, fs, path::PathBuf, process::Command};

/// Variable that names another PgBouncer than the installed one; `tests/run --pgbouncer PATH` sets it.
const PROGRAM: &str = "OUTBOX_TEST_PGBOUNCER";
/// The first version that supports prepared statements over several connections of the server.
const CARRIES_STATEMENTS: (u32, u32) = (1, 21);

static RECIPE: Recipe = Recipe {
    name: "PgBouncer",
    account: "postgres",
    prepare: |_| Vec::new(),
    serve,
    // A startup message of protocol 3.0, as to the server itself.
    probe: Probe {
        hello: b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0",
        is_answer: |answer| answer.starts_with(b"R"),
    },
    url: |port| format!("postgres://postgres@127.0.0.1:{port}/postgres"),
    stop: Signal::INT,
};

/// Starts one that accepts every user, for any database of the shared server.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start() -> Server {
    Server::launch(&RECIPE, &[]).await
}

/// Tells whether the started one supports prepared statements: version 1.21 and later do.
///
/// # Panics
/// When it is not installed or does not say its version.
#[must_use]
pub fn carries_statements() -> bool {
    version() >= CARRIES_STATEMENTS
}

fn program() -> PathBuf {
    match env::var_os(PROGRAM).filter(|path| !path.is_empty()) {
        Some(path) => path.into(),
        None => installed("pgbouncer", "pgbouncer"),
    }
}

/// `PgBouncer 1.18.0` on its first line.
fn version() -> (u32, u32) {
    let output =
        Command::new(program()).arg("--version").output().expect("PgBouncer says its version");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = output.split_whitespace().nth(1).unwrap_or_default();
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor),
        _ => panic!("not a version of PgBouncer: {output}"),
    }
}

fn serve(home: &ServerHome) -> Vec<Command> {
    let server = Database::Postgres.server_url().expect("PostgreSQL is on a server");
    let host = server.rsplit_once('@').map_or(&*server, |(_, host)| host);
    let host = host.split(['/', '?']).next().unwrap_or_default();
    let (host, port) = host.rsplit_once(':').unwrap_or((host, "5432"));
    let statements = if carries_statements() { "max_prepared_statements = 200\n" } else { "" };
    // Few connections of the server for many clients, so that clients get different ones.
    let settings = format!(
        "[databases]\n* = host={host} port={port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
         unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 4\n\
         ignore_startup_parameters = extra_float_digits\n{statements}",
        home.port()
    );
    let file = home.folder().join("pgbouncer.ini");
    fs::write(&file, settings).expect("the folder is there");
    let mut command = Command::new(program());
    command.arg(file);
    vec![command]
}
