//! A private Mosquitto (MQTT).

use super::{Probe, Recipe, Server, ServerHome, home::installed};
use rustix::process::Signal;
use std::{fs, process::Command};

static RECIPE: Recipe = Recipe {
    name: "Mosquitto",
    account: "mosquitto",
    prepare: |_| Vec::new(),
    serve,
    // CONNECT of MQTT 3.1.1, clean, as "probe"; the answer is a CONNACK that accepts.
    probe: Probe {
        hello: b"\x10\x11\0\x04MQTT\x04\x02\0\x3c\0\x05probe",
        is_answer: |answer| answer.starts_with(b"\x20\x02\0\0"),
    },
    url: |port| format!("mqtt://127.0.0.1:{port}"),
    stop: Signal::TERM,
};

/// Starts one that accepts every client and keeps sessions over an orderly stop.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start() -> Server {
    Server::launch(&RECIPE, &[]).await
}

fn serve(home: &ServerHome) -> Vec<Command> {
    let settings = format!(
        "listener {} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}\nlog_dest stderr\n",
        home.port(),
        home.inside("")
    );
    let file = home.folder().join("mosquitto.conf");
    fs::write(&file, settings).expect("the server's folder can be written");
    let mut command = Command::new(installed("mosquitto", "mosquitto"));
    command.arg("-c").arg(file);
    vec![command]
}
