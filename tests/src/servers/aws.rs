//! Private SQS and SNS: two emulators, ministack and moto. Amazon's own service runs nowhere else;
//! they stand for it where their authors have read its documentation alike. Both keep everything in
//! memory, and forget it when they end.

use super::{Probe, Recipe, Server, ServerHome};
use rustix::process::Signal;
use std::{env, path::PathBuf, process::Command};

/// Both versions that are tested, as the folder in which `tests/run` installs them is called.
const FOLDER: &str = "aws-ministack-1.5.33-moto-5.2.5";

static MINISTACK: Recipe = Recipe {
    name: "SQS and SNS (ministack)",
    // The programs lie in the cache of the user who runs the tests, which other users cannot read.
    account: "root",
    prepare: |_| Vec::new(),
    serve: ministack,
    probe: Probe {
        hello: b"GET /_ministack/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        is_answer: |answer| answer.starts_with(b"HTTP/1.1 200"),
    },
    url: |port| format!("sqs+http://127.0.0.1:{port}/000000000000"),
    stop: Signal::TERM,
};

static MOTO: Recipe = Recipe {
    name: "SQS and SNS (moto)",
    account: "root",
    prepare: |_| Vec::new(),
    serve: moto,
    probe: Probe {
        hello: b"GET /moto-api/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        is_answer: |answer| answer.starts_with(b"HTTP/1.1 200"),
    },
    url: |port| format!("sqs+http://127.0.0.1:{port}/123456789012"),
    // It ends by an interrupt alone.
    stop: Signal::INT,
};

/// Starts ministack.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start() -> Server {
    Server::launch(&MINISTACK, &[]).await
}

/// Starts moto, the second opinion.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start_moto() -> Server {
    Server::launch(&MOTO, &[]).await
}

fn ministack(home: &ServerHome) -> Vec<Command> {
    let mut command = Command::new(program("ministack"));
    let port = home.port().to_string();
    command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port).env("SERVICES", "sqs,sns");
    command.env("LOG_LEVEL", "WARNING").env("TMPDIR", home.inside(""));
    vec![command]
}

fn moto(home: &ServerHome) -> Vec<Command> {
    let mut command = Command::new(program("moto_server"));
    command.args(["-H", "127.0.0.1", "-p", &home.port().to_string()]);
    vec![command]
}

/// Finds a program where `tests/run` has installed it.
fn program(name: &str) -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .unwrap_or_default();
    let path = cache.join("outbox-tests").join(FOLDER).join("bin").join(name);
    assert!(path.is_file(), "{FOLDER} is not installed: ./tests/run does it, with python3 and pip");
    path
}
