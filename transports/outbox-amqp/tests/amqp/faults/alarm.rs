//! A server that runs out of memory and blocks its publishers.

use crate::{
    outbox::World,
    support::{SOON, full, name},
};
use outbox_amqp::{AmqpPublisher, Queue, Topology};
use outbox_core::{
    failure::FailureClass,
    transport::{PublishError, Publisher},
};
use std::time::Duration;
use tests::{
    servers::{Server, rabbitmq},
    wait_until,
};

/// How long a publisher waits, so that the test need not wait for long.
const PATIENCE: Duration = Duration::from_secs(1);

fn publisher(server: &Server, name: &str) -> AmqpPublisher {
    let topology = Topology::new().queue(Queue::quorum(name));
    AmqpPublisher::new(server.url()).expect("a URL").queue(name).declare(topology).timeout(PATIENCE)
}

async fn raise(server: &Server) {
    rabbitmq::control(server, &["set_vm_memory_high_watermark", "0.000001"]).await;
}

async fn lift(server: &Server) {
    rabbitmq::control(server, &["set_vm_memory_high_watermark", "0.8"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_alarm_blocks_publishers_says_so_and_costs_nothing_when_it_is_lifted() {
    const EVENTS: i64 = 300;
    let server = rabbitmq::start().await;
    let name = name("alarm");
    let direct = publisher(&server, &name);
    direct.publish(&full()).await.expect("confirmed");
    let world = World::open().await;
    let relay = world.relay(publisher(&server, &name)).await;
    world.emit(0..EVENTS).await;
    world.drained().await;

    raise(&server).await;
    let blocked = async || {
        let failure = direct.publish(&full()).await.err();
        failure.is_some_and(|error: PublishError| {
            assert_eq!(error.class(), FailureClass::Unavailable, "{error}");
            error.to_string().contains("connection.blocked): low on memory")
        })
    };
    wait_until(SOON, "the publisher says that it is blocked, and why", blocked).await;
    world.emit(EVENTS..2 * EVENTS).await;
    wait_until(SOON, "the breaker opens", async || {
        tests::equals(relay.stats().borrow().open_breakers, 1)
    })
    .await;

    lift(&server).await;
    world.drained().await;
    wait_until(SOON, "the publisher goes on", async || direct.publish(&full()).await.is_ok()).await;
    relay.shutdown(SOON).await.expect("stopped");
    assert_eq!(world.number("SELECT COUNT(*) FROM outbox_dead_letters").await, 0);
}
