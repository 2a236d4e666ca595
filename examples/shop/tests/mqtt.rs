//! The shop over MQTT: the same services, the same promises.
#![cfg(feature = "mqtt")]

use std::{process::Command, time::Duration};
use tests::{
    databases::{Database, TempDatabase},
    processes::Process,
    servers::mosquitto,
};

/// How long a run may take: the relay probes a broker that was down with growing pauses.
const ENDED_WITHIN: Duration = Duration::from_secs(240);

async fn run(broker: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    let mut shop = Process::start(command.args(["--broker", broker]).args(arguments));
    let (status, lines) = shop.finish(ENDED_WITHIN).await;
    let said = lines.join("\n");
    assert!(status.success(), "{said}");
    said
}

#[tokio::test]
async fn every_order_ends_with_one_payment() {
    let broker = mosquitto::start().await;
    let said = run(&broker.url(), &["--orders", "40"]).await;
    for line in ["through MQTT; confirmed", "orders: 40", "one an order", "dead: 0", "lost: 0"] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}

#[tokio::test]
async fn a_broker_that_fails_in_four_ways_costs_no_order_and_no_second_payment() {
    let (broker, database) =
        (mosquitto::start().await, TempDatabase::create(Database::Postgres).await);
    let said =
        run(&broker.url(), &["--database", database.url(), "--orders", "60", "--faults"]).await;
    for line in [
        "the MQTT server works, its answers get lost",
        "orders: 60",
        "one an order",
        "dead: 0",
        "lost: 0",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}
