//! What a server is configured to take.

use crate::support::{full, message_with, name, numbered};
use outbox_amqp::{AmqpPublisher, Queue, Topology};
use outbox_core::{
    failure::FailureClass,
    transport::{PublishError, Publisher, publish_all},
};
use tests::servers::rabbitmq;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_above_the_servers_own_limit_can_never_go_and_takes_no_neighbour_with_it() {
    let server = rabbitmq::start().await;
    rabbitmq::control(&server, &["eval", "application:set_env(rabbit, max_message_size, 1000)."])
        .await;
    let name = name("small");
    let topology = Topology::new().queue(Queue::quorum(&name));
    let publisher = AmqpPublisher::new(server.url()).expect("a URL").queue(&name).declare(topology);
    let large = message_with(|m| m.payload = vec![b'x'; 1001].into());
    let error = publisher.publish(&large).await.expect_err("too large");
    assert_eq!(error.class(), FailureClass::Permanent, "{error}");
    assert!(error.to_string().contains("message size"), "{error}");

    let mut batch: Vec<_> = (1..=20).map(|n| numbered(n, &format!("k{n}"))).collect();
    batch.insert(7, large);
    let outcomes = publish_all(&publisher, &batch).await;
    let classes: Vec<_> =
        outcomes.iter().map(|outcome| outcome.as_ref().err().map(PublishError::class)).collect();
    let expected: Vec<_> =
        (0..21).map(|place| (place == 7).then_some(FailureClass::Permanent)).collect();
    assert_eq!(classes, expected, "{outcomes:?}");

    // A user without the right to write.
    rabbitmq::control(&server, &["set_permissions", "guest", ".*", "^$", ".*"]).await;
    let fresh = AmqpPublisher::new(server.url()).expect("a URL").exchange("amq.topic");
    let error = fresh.publish(&full()).await.expect_err("refused");
    assert_eq!(error.class(), FailureClass::Unavailable, "{error}");
    assert!(error.to_string().contains("403 ACCESS_REFUSED"), "{error}");
}
