//! A private RabbitMQ, with a port mapper of its own beside it.

use super::{Probe, Recipe, Server, ServerHome, home::installed};
use crate::processes::Process;
use rustix::process::Signal;
use std::{fs, process::Command, time::Duration};

/// Where class 10, method 10 (connection.start) stands in a frame: after its type, channel and size.
const METHOD_AT: std::ops::Range<usize> = 7..11;

/// How long a command to the server may take: an Erlang machine is started for it, which took over a minute beside sixteen
/// busy processes.
const CONTROLLED_WITHIN: Duration = Duration::from_mins(3);

static RECIPE: Recipe = Recipe {
    name: "RabbitMQ",
    account: "rabbitmq",
    prepare: |_| Vec::new(),
    serve,
    probe: Probe {
        hello: b"AMQP\0\0\x09\x01",
        is_answer: |answer| answer.get(METHOD_AT) == Some(&[0, 10, 0, 10]),
    },
    url: |port| format!("amqp://guest:guest@127.0.0.1:{port}"),
    stop: Signal::TERM,
};

/// Starts one, with the user `guest`. It takes several seconds.
///
/// # Panics
/// When it is not installed or does not start.
pub async fn start() -> Server {
    Server::launch(&RECIPE, &[]).await
}

/// Runs `rabbitmqctl` on a private server, and gives what it printed. It takes a second or two.
///
/// # Panics
/// When it fails or takes longer than three minutes.
pub async fn control(server: &Server, arguments: &[&str]) -> String {
    let [mapper_port, _] = server.home.side_ports();
    let output = server.home.folder().join("control.log");
    // What an earlier run has printed is not this one's.
    let _ = fs::remove_file(&output);
    let mut command = Command::new(installed("rabbitmqctl", "rabbitmq-server"));
    command
        .args(["--quiet", "--node", &format!("outbox-{}@localhost", server.port())])
        .args(arguments)
        .env("HOME", server.home.folder())
        .env("ERL_EPMD_PORT", mapper_port.to_string())
        .env("RABBITMQ_CONF_ENV_FILE", server.home.inside("no-environment"));
    server.home.run_as_account(&mut command);
    let status = Process::start_logged(&mut command, &output).wait(CONTROLLED_WITHIN).await;
    let printed = fs::read_to_string(&output).unwrap_or_default();
    assert!(status.success(), "rabbitmqctl {arguments:?} failed:\n{printed}");
    printed
}

/// Gives the URL of the server that tests share, each under names of its own: that of `OUTBOX_TEST_AMQP_URL`, or the usual
/// one on loopback.
///
/// # Panics
/// When the URL of the environment is not on loopback and `OUTBOX_TEST_ALLOW_REMOTE=1` is not set.
#[must_use]
pub fn shared_url() -> String {
    crate::databases::server_url("OUTBOX_TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
}

fn serve(home: &ServerHome) -> Vec<Command> {
    let [mapper_port, node_port] = home.side_ports().map(|port| port.to_string());
    // Erlang nodes find one another through a daemon on a fixed port; a private one is not found by other nodes, and
    // does not outlive the test.
    let mut mapper = Command::new(installed("epmd", "rabbitmq-server"));
    mapper.args(["-port", &mapper_port, "-address", "127.0.0.1"]);

    let plugins = home.folder().join("plugins");
    fs::write(&plugins, "[].").expect("the server's folder can be written");
    // The package's script of that name in the PATH insists on being root or `rabbitmq`; the one behind it does not.
    let mut server = Command::new(installed("rabbitmq-server", "rabbitmq-server"));
    server
        .env("HOME", home.folder())
        .env("ERL_EPMD_PORT", mapper_port)
        .env("RABBITMQ_NODENAME", format!("outbox-{}@localhost", home.port()))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", home.port().to_string())
        .env("RABBITMQ_DIST_PORT", node_port)
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
        .env("RABBITMQ_CONF_ENV_FILE", home.inside("no-environment"))
        .env("RABBITMQ_CONFIG_FILE", home.inside("no-settings"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins)
        .env("RABBITMQ_MNESIA_BASE", home.inside("mnesia"))
        .env("RABBITMQ_LOG_BASE", home.inside("log"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_PID_FILE", home.inside("pid"));
    vec![mapper, server]
}
