//! What a server suffers: a kill, a silent network, too much that waits. Each on a private one.

use crate::support::{
    SOON, connected, lost, next, next_at_last, nothing_comes, number, numbered, publish, publisher,
    subscribed, subscriber,
};
use outbox_core::{
    failure::FailureClass,
    testing::Recorder,
    transport::{Publisher, Subscriber, publish_all},
};
use outbox_mqtt::{MqttPublisher, MqttSubscriber};
use std::{fs, time::Duration};
use tests::{
    Proxy,
    servers::{Server, mosquitto},
    wait_until,
};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_fails_silently_is_noticed_by_both_halves() {
    const WITHIN: Duration = Duration::from_secs(1);
    let server = mosquitto::start().await;
    let proxy = Proxy::before(&server.url()).await;
    let url = proxy.url(&server.url());
    let publisher = MqttPublisher::new(&url).expect("a URL").timeout(WITHIN).keep_alive(WITHIN);
    let subscriber = MqttSubscriber::new(&url, "billing-1").expect("a URL").topic("orders");
    let mut subscriber = connected(subscriber.timeout(WITHIN).keep_alive(WITHIN)).await;
    publisher.publish(&numbered(1, "k")).await.expect("confirmed");
    next(&mut subscriber).await.ack().await.expect("acknowledged");
    // A connection that is idle for longer than the keep alive holds.
    assert!(timeout(WITHIN * 2, subscriber.next()).await.is_err(), "it holds, and nothing comes");
    publisher.publish(&numbered(2, "k")).await.expect("confirmed over the same connection");
    next(&mut subscriber).await.ack().await.expect("acknowledged");

    proxy.vanish();
    let error = publisher.publish(&numbered(3, "k")).await.expect_err("nothing comes back");
    assert_eq!(error.class(), FailureClass::Transient);
    assert!(error.to_string().contains("did not confirm the message within 1s"), "{error}");
    let text = lost(&mut subscriber).await;
    assert!(text.contains("longer than the keep alive of 1s"), "{text}");
    let error = publisher.publish(&numbered(3, "k")).await.expect_err("nothing comes back");
    assert_eq!(error.class(), FailureClass::Unavailable, "no attempt is counted: {error}");
    proxy.come_back();
    let delivery = next_at_last(&mut subscriber).await;
    assert_eq!(number(&delivery), 3, "the message had only lost its confirmation");
    delivery.ack().await.expect("acknowledged");
    publisher.publish(&numbered(4, "k")).await.expect("confirmed again");
}

/// Publishes messages to a session that is away.
async fn publish_behind(server: &Server, messages: i64) {
    subscribed(server).await.close().await;
    let batch: Vec<_> = (1..=messages).map(|n| numbered(n, &format!("k{n}"))).collect();
    let outcomes = publish_all(&publisher(server), &batch).await;
    assert!(outcomes.iter().all(Result::is_ok), "the server confirms all");
}

/// Receives until nothing more comes, and gives how many different messages came.
async fn received(server: &Server) -> usize {
    let (mut subscriber, recorder) = (subscribed(server).await, Recorder::new());
    while let Ok(next) = timeout(Duration::from_secs(1), subscriber.next()).await {
        recorder.take(next.expect("holds").expect("open")).await;
    }
    recorder.distinct()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_far_behind_loses_messages_as_shipped_and_none_without_the_limit() {
    const MESSAGES: i64 = 1_500;
    let shipped = mosquitto::as_shipped().await;
    publish_behind(&shipped, MESSAGES).await;
    let came = received(&shipped).await;
    assert!((1..1_500).contains(&came), "{came} of {MESSAGES} confirmed ones came");
    let unlimited = mosquitto::start().await;
    publish_behind(&unlimited, MESSAGES).await;
    assert_eq!(received(&unlimited).await, 1_500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_loses_what_it_confirmed_as_shipped() {
    let mut server = mosquitto::as_shipped().await;
    publish_behind(&server, 20).await;
    server.kill().await;
    server.start().await;
    let error = publisher(&server).publish(&numbered(1, "k")).await.expect_err("no session");
    assert!(error.to_string().contains("0x10"), "the session is gone too, and that shows: {error}");
    assert_eq!(received(&server).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_saves_each_change_keeps_what_it_saved_over_a_kill() {
    const LAST: &[u8] = b"{\"n\":20}";
    let mut server = mosquitto::durable().await;
    publish_behind(&server, 20).await;
    // It saves after it has confirmed.
    let saved = server.folder().join("mosquitto.db");
    wait_until(SOON, "the last message is saved", async || {
        let bytes = fs::read(&saved).unwrap_or_default();
        bytes.windows(LAST.len()).any(|part| part == LAST)
    })
    .await;
    server.kill().await;
    server.start().await;
    publish(&publisher(&server), "k21", 21..=21).await;
    assert_eq!(received(&server).await, 21, "the session is there, with its messages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgot_the_session_is_subscribed_to_again() {
    let mut server = mosquitto::as_shipped().await;
    let mut subscriber = connected(subscriber(&server)).await;
    publish(&publisher(&server), "k", 1..=1).await;
    next(&mut subscriber).await.ack().await.expect("acknowledged");
    server.kill().await;
    let text = lost(&mut subscriber).await;
    assert!(text.contains("the connection was lost"), "{text}");
    server.start().await;
    let connect = async { while subscriber.connect().await.is_err() {} };
    timeout(SOON, connect).await.expect("it connects again by itself");
    publish(&publisher(&server), "k", 2..=2).await;
    let delivery = next(&mut subscriber).await;
    assert_eq!(number(&delivery), 2);
    delivery.ack().await.expect("acknowledged");
    nothing_comes(&mut subscriber).await;
}
