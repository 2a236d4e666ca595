//! A quorum queue whose leader is not chosen yet.

use crate::support::{full, name, next, numbered};
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, Queue, Topology};
use outbox_core::transport::{Publisher, publish_all};
use tests::servers::rabbitmq;

/// For how long the queue has none, in milliseconds: longer than `rabbitmqctl` needs to end.
const WITHOUT_A_LEADER: u32 = 1_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_has_just_declared_a_queue_waits_until_the_server_has_chosen_its_leader() {
    let server = rabbitmq::start().await;
    let name = name("leader");
    let topology = Topology::new().queue(Queue::quorum(&name));
    let publisher = || AmqpPublisher::new(server.url()).expect("a URL").queue(&name).declare(topology.clone());
    let first = full();
    publisher().publish(&first).await.expect("confirmed");

    let down = format!(
        "Id = {{'%2F_{name}', node()}}, ok = ra:stop_server(quorum_queues, Id), \
         spawn(fun() -> timer:sleep({WITHOUT_A_LEADER}), ra:restart_server(quorum_queues, Id) end), down."
    );
    let said = rabbitmq::control(&server, &["eval", &down]).await;
    assert_eq!(said.trim(), "down");
    let batch: Vec<_> = (1..=20).map(|n| numbered(n, &format!("k{n}"))).collect();
    let verdicts = publish_all(&publisher(), &batch).await;
    assert!(verdicts.iter().all(Result::is_ok), "{verdicts:?}");

    let mut subscriber = AmqpSubscriber::new(server.url(), &name).expect("a URL");
    let mut came = Vec::new();
    for _ in 0..=batch.len() {
        let delivery = next(&mut subscriber).await;
        came.push(delivery.message.as_ref().map(|message| message.id).expect("readable"));
        delivery.ack().await.expect("heard");
    }
    came.sort_unstable();
    let mut expected: Vec<_> = batch.iter().chain([&first]).map(|message| message.id).collect();
    expected.sort_unstable();
    assert_eq!(came, expected, "each is there once");
}
