//! Runs a command with private servers, whose URLs it finds in the environment, and removes them when it has ended.
//!
//! ```text
//! with-servers postgres mariadb -- cargo nextest run
//! ```

use rustix::process::{Pid, Signal, kill_process};
use std::{
    env,
    process::{Child, Command, ExitCode, ExitStatus},
};
use tests::servers::{self, Server};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Duration, sleep},
};

/// How often the command is polled; it runs for minutes.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stderr, reason = "a program of the command line")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let mut parts = arguments.splitn(2, |argument| argument == "--");
    let names = parts.next().unwrap_or_default();
    let Some([program, rest @ ..]) = parts.next() else {
        eprintln!(
            "usage: with-servers [postgres|mariadb|redis|amqp|kafka|mqtt|nats|sqs].. -- COMMAND [ARGUMENT].."
        );
        return ExitCode::from(2);
    };
    let mut command = Command::new(program);
    command.args(rest);
    let mut running = Vec::new();
    for name in names {
        let Some((variable, server)) = start(name).await else {
            eprintln!("with-servers: no server is called {name}");
            return ExitCode::from(2);
        };
        command.env(variable, server.url());
        running.push(server);
    }
    match command.spawn() {
        Ok(child) => code_of(ended(child).await),
        Err(error) => {
            eprintln!("with-servers: {program} cannot be started: {error}");
            ExitCode::from(127)
        }
    }
}

/// Starts a server by its short name; gives the variable in which tests look for its URL.
async fn start(name: &str) -> Option<(&'static str, Server)> {
    Some(match name {
        "postgres" => ("OUTBOX_TEST_POSTGRES_URL", servers::postgres::start().await),
        "mariadb" => ("OUTBOX_TEST_MARIADB_URL", servers::mariadb::start().await),
        "redis" => ("OUTBOX_TEST_REDIS_URL", servers::redis::start().await),
        "amqp" => ("OUTBOX_TEST_AMQP_URL", servers::rabbitmq::start().await),
        "kafka" => ("OUTBOX_TEST_KAFKA_URL", servers::kafka::start().await),
        "mqtt" => ("OUTBOX_TEST_MQTT_URL", servers::mosquitto::start().await),
        "nats" => ("OUTBOX_TEST_NATS_URL", servers::nats::start().await),
        "sqs" => ("OUTBOX_TEST_SQS_URL", servers::aws::start().await),
        _ => return None,
    })
}

/// Waits for the command. A request to end is passed on, so that the servers outlive it; an interrupt from a terminal
/// has reached it already.
async fn ended(mut child: Child) -> std::io::Result<ExitStatus> {
    let id = Pid::from_child(&child);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        tokio::select! {
            _ = terminate.recv() => drop(kill_process(id, Signal::TERM)),
            _ = interrupt.recv() => (),
            () = sleep(POLL_INTERVAL) => (),
        }
    }
}

/// Passes the command's exit code on; a command that a signal ended has failed.
fn code_of(status: std::io::Result<ExitStatus>) -> ExitCode {
    let code =
        status.ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
