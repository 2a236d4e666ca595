//! A quorum queue whose leader is not chosen yet.

use crate::support::{full, name, next, numbered};
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, Queue, Topology};
use outbox_core::transport::{Publisher, publish_all};
use std::time::{Duration, Instant};
use tests::servers::rabbitmq;

/// For how long the queue has none, in milliseconds: longer than `rabbitmqctl` needs to end.
const WITHOUT_A_LEADER: u32 = 1_500;
/// A publish that takes longer was refused at first.
const REFUSED: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_has_just_declared_a_queue_waits_until_the_server_has_chosen_its_leader() {
    let server = rabbitmq::start().await;
    let name = name("leader");
    let topology = Topology::new().queue(Queue::quorum(&name));
    let publisher =
        || AmqpPublisher::new(server.url()).expect("a URL").queue(&name).declare(topology.clone());
    let first = full();
    publisher().publish(&first).await.expect("confirmed");

    let down = format!(
        "Id = {{'%2F_{name}', node()}}, ok = ra:stop_server(quorum_queues, Id), \
         spawn(fun() -> timer:sleep({WITHOUT_A_LEADER}), ra:restart_server(quorum_queues, Id) end), down."
    );
    let mut sent = vec![first];
    // Where `rabbitmqctl` takes long to end, the leader is back before anything is published.
    let mut rounds = 0..5;
    let waited = loop {
        let round = rounds.next().expect("the publisher has met the queue without a leader");
        let said = rabbitmq::control(&server, &["eval", &down]).await;
        assert_eq!(said.trim(), "down");
        let batch: Vec<_> = (1..=20).map(|n| numbered(100 * round + n, &format!("k{n}"))).collect();
        let begun = Instant::now();
        let outcomes = publish_all(&publisher(), &batch).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        sent.extend(batch);
        if begun.elapsed() > REFUSED {
            break begun.elapsed();
        }
    };
    assert!(waited < Duration::from_secs(10), "{waited:?}");

    let mut subscriber = AmqpSubscriber::new(server.url(), &name).expect("a URL");
    let mut came = Vec::new();
    for _ in 0..sent.len() {
        let delivery = next(&mut subscriber).await;
        came.push(delivery.message.as_ref().map(|message| message.id).expect("readable"));
        delivery.ack().await.expect("accepted");
    }
    came.sort_unstable();
    let mut expected: Vec<_> = sent.iter().map(|message| message.id).collect();
    expected.sort_unstable();
    assert_eq!(came, expected, "each is there once");
}
