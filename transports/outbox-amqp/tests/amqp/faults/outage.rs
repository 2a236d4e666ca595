//! A server that is gone for a while, under load.

use crate::{
    outbox::World,
    support::{SOON, name},
};
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, Queue, Topology};
use outbox_core::{testing::Recorder, transport::Subscriber};
use std::time::Duration;
use tests::{servers::rabbitmq, wait_until};

/// How long it is gone.
const AWAY: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_under_load_costs_no_event_and_no_letter_and_drains_by_itself() {
    const CHUNK: i64 = 50;
    let mut server = rabbitmq::start().await;
    let name = name("outage");
    let topology = Topology::new().queue(Queue::quorum(&name));
    let publisher =
        AmqpPublisher::new(server.url()).expect("a URL").queue(&name).declare(topology.clone());
    let world = World::open().await;
    let relay = world.relay(publisher).await;
    let mut emitted = 0;
    let mut emit = async |chunks: i64| {
        for _ in 0..chunks {
            world.emit(emitted..emitted + CHUNK).await;
            emitted += CHUNK;
        }
        emitted
    };
    emit(4).await;
    wait_until(SOON, "events flow", async || tests::above(relay.stats().borrow().delivered, 0))
        .await;
    let (_, ()) = tokio::join!(emit(10), server.stop());
    emit(2).await;
    wait_until(SOON, "the breaker opens", async || {
        tests::equals(relay.stats().borrow().open_breakers, 1)
    })
    .await;
    tokio::time::sleep(AWAY).await;
    server.start().await;
    let emitted = emit(2).await;
    world.drained().await;
    relay.shutdown(SOON).await.expect("stopped");

    let recorder = Recorder::new();
    let mut subscriber = AmqpSubscriber::new(server.url(), &name).expect("a URL");
    let all = usize::try_from(emitted).expect("few");
    let drain = async {
        while recorder.distinct() < all {
            if let Ok(Some(delivery)) = subscriber.next().await {
                recorder.take(delivery).await;
            }
        }
    };
    tokio::time::timeout(SOON, drain)
        .await
        .unwrap_or_else(|_| panic!("{} of {all} came", recorder.distinct()));
    assert_eq!(world.number("SELECT COUNT(*) FROM outbox_dead_letters").await, 0, "dead: 0");
    assert_eq!(
        world.number("SELECT COUNT(*) FROM outbox_retries").await,
        0,
        "nothing is left behind"
    );
}
