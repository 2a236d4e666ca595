//! A private Kafka: nisshi, a broker in one program that keeps topics, groups and idempotent producers over a SIGKILL.

use super::{Probe, Recipe, Server, ServerHome};
use rustix::process::Signal;
use std::{env, path::PathBuf, process::Command};

/// The version that is tested, and that `tests/run` installs.
const VERSION: &str = "0.8.1";

/// ApiVersions, version 0, correlation 1, without a client's name.
const HELLO: &[u8] = &[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];

static RECIPE: Recipe = Recipe {
    name: "Kafka (nisshi)",
    // The program lies in the cache of the user who runs the tests, which other users cannot read.
    account: "root",
    prepare: |_| Vec::new(),
    serve,
    // Its size, our correlation, and no error.
    probe: Probe {
        hello: HELLO,
        is_answer: |answer| answer.get(4..10) == Some(&[0, 0, 0, 1, 0, 0]),
    },
    url: |port| format!("kafka://127.0.0.1:{port}"),
    stop: Signal::TERM,
};

/// Starts one that stores its records, in a file of SQLite in its folder.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start() -> Server {
    Server::launch(&RECIPE, &["--storage-engine", "sqlite://kafka.db"]).await
}

/// Starts one that keeps its records in memory, and is faster for it.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start_in_memory() -> Server {
    Server::launch(&RECIPE, &["--storage-engine", "memory://nisshi/"]).await
}

/// Gives the URL of the broker that tests share, each under topics of its own: that of `OUTBOX_TEST_KAFKA_URL`, or the usual
/// one on loopback.
///
/// # Panics
/// When the URL of the environment is not on loopback and `OUTBOX_TEST_ALLOW_REMOTE=1` is not set.
#[must_use]
pub fn shared_url() -> String {
    crate::databases::server_url("OUTBOX_TEST_KAFKA_URL", "kafka://127.0.0.1:9092")
}

fn serve(home: &ServerHome) -> Vec<Command> {
    let mut command = Command::new(program());
    let at = format!("tcp://127.0.0.1:{}", home.port());
    command.args(["broker", "--listener-url", &at, "--advertised-listener-url", &at]).args([
        "--group-initial-rebalance-delay",
        "0s",
        "--group-poll-interval",
        "100ms",
    ]);
    vec![command]
}

/// Finds the program: in the PATH, or where `tests/run` has installed it.
fn program() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .unwrap_or_default();
    let folders = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    let own = cache.join(format!("outbox-tests/nisshi-{VERSION}/bin"));
    let found = folders
        .into_iter()
        .chain([own])
        .map(|folder| folder.join("nisshi"))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("nisshi {VERSION} is not installed: ./tests/run builds it once, in some ten minutes")
    })
}

/// Deletes all data of a stopped broker, as a lost disk would.
pub fn forget(server: &Server) {
    for name in ["kafka.db", "kafka.db-wal", "kafka.db-shm"] {
        let _ = std::fs::remove_file(server.home.inside(name));
    }
}
