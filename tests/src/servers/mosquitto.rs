//! A private Mosquitto (MQTT).

use super::{Probe, Recipe, Server, ServerHome, home::installed};
use rustix::process::Signal;
use std::{fs, process::Command};

const RECIPE: Recipe = Recipe {
    name: "Mosquitto",
    account: "mosquitto",
    prepare: |_| Vec::new(),
    serve: |home| serve(home, UNLIMITED),
    // CONNECT of MQTT 3.1.1, clean, as "probe"; the answer is a CONNACK, which may refuse a client
    // without a password.
    probe: Probe {
        hello: b"\x10\x11\0\x04MQTT\x04\x02\0\x3c\0\x05probe",
        is_answer: |answer| answer.starts_with(b"\x20\x02\0"),
    },
    url: |port| format!("mqtt://127.0.0.1:{port}"),
    stop: Signal::TERM,
};

static ORDERLY: Recipe = RECIPE;
static DURABLE: Recipe = Recipe { serve: |home| serve(home, SAVED_AT_ONCE), ..RECIPE };
static AS_SHIPPED: Recipe = Recipe { serve: |home| serve(home, ""), ..RECIPE };

/// Keeps all messages of a session that is behind.
const UNLIMITED: &str = "max_queued_messages 0\n";
/// Saves sessions and messages after each change, and not before it confirms them.
const SAVED_AT_ONCE: &str =
    "max_queued_messages 0\nautosave_interval 1\nautosave_on_changes true\n";

/// Starts one that accepts every client and keeps sessions and all their messages over an orderly
/// stop.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start() -> Server {
    start_with(&[]).await
}

/// Starts one with additional arguments, such as `["-c", path]`, a file with more settings.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start_with(settings: &[&str]) -> Server {
    Server::launch(&ORDERLY, settings).await
}

/// Starts one that keeps what it has saved over a kill: each change, a moment after it.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn durable() -> Server {
    Server::launch(&DURABLE, &[]).await
}

/// Starts one with the limits and the persistence that Debian ships.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn as_shipped() -> Server {
    Server::launch(&AS_SHIPPED, &[]).await
}

fn serve(home: &ServerHome, more: &str) -> Vec<Command> {
    let settings = format!(
        "listener {} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}\nlog_dest stderr\n{more}",
        home.port(),
        home.inside("")
    );
    let file = home.folder().join("mosquitto.conf");
    fs::write(&file, settings).expect("the server's folder can be written");
    let mut command = Command::new(installed("mosquitto", "mosquitto"));
    command.arg("-c").arg(file);
    vec![command]
}
