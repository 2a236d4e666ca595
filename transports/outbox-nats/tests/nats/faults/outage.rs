//! Connections that end, and a network that fails silently.

use crate::support::{
    CONSUMER, STREAM, lost, next, numbered, place, publisher, stream, subscriber,
};
use outbox_core::{
    failure::FailureClass,
    transport::{Publisher, Subscriber},
};
use outbox_nats::{DurableConsumer, NatsPublisher, NatsSubscriber};
use std::time::Duration;
use tests::{Proxy, servers::nats};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_received_before_a_restart_comes_again_before_later_messages() {
    let mut server = nats::start().await;
    let sending = publisher(&server);
    for n in 1..=5 {
        sending.publish(&numbered(n, "k")).await.expect("confirmed");
    }
    let consumer = DurableConsumer::new().ack_wait(Duration::from_secs(60));
    let mut subscriber = subscriber(&server).declare_consumer(consumer);
    let mut received = Vec::new();
    for expected in 1..=5 {
        let delivery = next(&mut subscriber).await;
        assert_eq!(place(&delivery), (expected, Some(1)));
        received.push(delivery);
    }
    received.remove(0).ack().await.expect("accepted");
    server.stop().await;
    let text = lost(&mut subscriber).await;
    assert!(text.contains("the connection was lost"), "{text}");
    server.start().await;
    publisher(&server).publish(&numbered(6, "k")).await.expect("confirmed");
    assert!(received.remove(0).ack().await.is_err(), "its connection is gone");
    // No later message comes first, though the ack wait of the earlier ones is a minute.
    for expected in 2..=6 {
        let delivery = loop {
            // While the server starts, opening may fail once more.
            if let Ok(delivery) = subscriber.next().await {
                break delivery.expect("open");
            }
        };
        let attempt = if expected == 6 { 1 } else { 2 };
        assert_eq!(place(&delivery), (expected, Some(attempt)));
        delivery.ack().await.expect("accepted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_fails_silently_is_noticed_by_both_halves() {
    const WITHIN: Duration = Duration::from_secs(1);
    let server = nats::start().await;
    let proxy = Proxy::before(&server.url()).await;
    let url = proxy.url(&server.url());
    let publisher = NatsPublisher::new(&url).expect("a URL").declare([stream()]).timeout(WITHIN);
    publisher.publish(&numbered(1, "k")).await.expect("confirmed");
    let mut subscriber = NatsSubscriber::new(&url, STREAM, CONSUMER)
        .expect("a URL")
        .declare_consumer(DurableConsumer::new().ack_wait(Duration::from_secs(2)))
        .timeout(WITHIN);
    next(&mut subscriber).await.ack().await.expect("accepted");
    proxy.vanish();
    let error = publisher.publish(&numbered(2, "k")).await.expect_err("nothing comes back");
    assert_eq!(error.class(), FailureClass::Transient);
    assert!(error.to_string().contains("did not confirm within 1s"), "{error}");
    // Two idle heartbeats are missing.
    let text = lost(&mut subscriber).await;
    assert!(text.contains("sent no idle heartbeat"), "{text}");
    proxy.come_back();
    let delivery = loop {
        if let Ok(delivery) = subscriber.next().await {
            break delivery.expect("open");
        }
    };
    assert_eq!(place(&delivery).0, 2, "the message had only lost its confirmation");
    delivery.ack().await.expect("accepted");
    let repeat = publisher.publish(&numbered(3, "k")).await;
    assert!(repeat.is_ok(), "{repeat:?}");
}
