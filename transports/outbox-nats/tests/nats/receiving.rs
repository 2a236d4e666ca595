//! The durable consumer: declared or found, shared, lost and made again; slow handlers, returns.

use crate::support::{
    CONSUMER, QUIET, SOON, STREAM, client, full, lost, next, numbered, place, publisher, stream,
    subscriber,
};
use async_nats::jetstream::consumer::{AckPolicy, pull};
use outbox_core::transport::{Publisher, Subscriber, publish_all};
use outbox_nats::{DurableConsumer, NatsSubscriber};
use std::time::{Duration, Instant};
use tests::servers::{Server, nats};
use tokio::time::timeout;

async fn send(server: &Server, places: std::ops::RangeInclusive<i64>) {
    let publisher = publisher(server);
    for n in places {
        publisher.publish(&numbered(n, "k")).await.expect("confirmed");
    }
}

#[tokio::test]
async fn a_consumer_or_stream_that_is_missing_is_named_with_what_to_do() {
    let server = nats::start().await;
    let mut undeclared = NatsSubscriber::new(server.url(), STREAM, CONSUMER).expect("a URL");
    let text = lost(&mut undeclared).await;
    assert!(text.contains("the stream `ORDERS` cannot be used"), "{text}");
    send(&server, 1..=1).await;
    let text = lost(&mut undeclared).await;
    assert!(
        text.contains("has no durable consumer `billing`; declare it: `.declare_consumer("),
        "{text}"
    );
    // Another client creates it.
    let orders = client(&server).await.get_stream(STREAM).await.expect("it is there");
    let config = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ..pull::Config::default()
    };
    orders.create_consumer(config).await.expect("created");
    let delivery = next(&mut undeclared).await;
    assert_eq!(place(&delivery), (1, Some(1)));
    delivery.ack().await.expect("accepted");
}

#[tokio::test]
async fn a_consumer_that_differs_is_an_error_that_says_what() {
    let server = nats::start().await;
    send(&server, 1..=1).await;
    next(&mut subscriber(&server)).await.ack().await.expect("accepted");
    let other = DurableConsumer::new().filter("orders").ack_wait(Duration::from_secs(9));
    let text = lost(&mut subscriber(&server).declare_consumer(other)).await;
    for part in [
        "the consumer `billing` of the stream `ORDERS` exists with other settings",
        "filter is \"\", declared is \"orders\"",
        "ack_wait is 2s, declared is 9s",
        "nats consumer edit ORDERS billing",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn a_filter_gives_the_messages_of_its_subject_alone() {
    let server = nats::start().await;
    let publisher = publisher(&server).subject(|m| {
        if m.sequence.is_some_and(|n| n.0 % 2 == 0) { "orders.even" } else { "orders.odd" }.into()
    });
    let batch: Vec<_> = (1..=6).map(|n| numbered(n, &format!("k{n}"))).collect();
    assert!(publish_all(&publisher, &batch).await.iter().all(Result::is_ok));
    let consumer = DurableConsumer::new().filter("orders.even");
    let mut subscriber = NatsSubscriber::new(server.url(), STREAM, "even")
        .expect("a URL")
        .declare_consumer(consumer);
    let mut came = Vec::new();
    for _ in 0..3 {
        let delivery = next(&mut subscriber).await;
        came.push(place(&delivery).0);
        delivery.ack().await.expect("accepted");
    }
    came.sort_unstable();
    assert_eq!(came, [2, 4, 6]);
}

#[tokio::test]
async fn a_consumer_that_is_deleted_is_reported_and_made_anew() {
    let server = nats::start().await;
    send(&server, 1..=1).await;
    let mut subscriber = subscriber(&server);
    next(&mut subscriber).await.ack().await.expect("accepted");
    let context = client(&server).await;
    let orders = context.get_stream(STREAM).await.expect("it is there");
    let (text, ()) = tokio::join!(lost(&mut subscriber), async {
        orders.delete_consumer(CONSUMER).await.expect("deleted");
    });
    assert!(text.contains("the consumer was deleted"), "{text}");
    // The new one has no memory of what was acknowledged.
    let delivery = next(&mut subscriber).await;
    assert_eq!(place(&delivery), (1, Some(1)));
    delivery.ack().await.expect("accepted");
}

#[tokio::test]
async fn a_slow_handler_keeps_its_message_beyond_the_ack_wait() {
    let server = nats::start().await;
    send(&server, 1..=1).await;
    let consumer = DurableConsumer::new().ack_wait(Duration::from_secs(1));
    let mut slow = subscriber(&server).declare_consumer(consumer.clone());
    let mut other = subscriber(&server).declare_consumer(consumer);
    let delivery = next(&mut slow).await;
    let again = timeout(Duration::from_secs(3), async {
        tokio::select! { again = slow.next() => again, again = other.next() => again }
    });
    assert!(again.await.is_err(), "it was not delivered again in three ack waits");
    delivery.ack().await.expect("a late ack is accepted");
    assert!(timeout(QUIET, slow.next()).await.is_err(), "it is done");
}

#[tokio::test]
async fn a_message_of_a_process_that_has_died_comes_again_after_the_ack_wait() {
    let server = nats::start().await;
    send(&server, 1..=1).await;
    let consumer = DurableConsumer::new().ack_wait(Duration::from_secs(1));
    let mut dying = subscriber(&server).declare_consumer(consumer.clone());
    assert_eq!(dying.redelivers_within(), Duration::from_secs(1));
    let delivery = next(&mut dying).await;
    // What a killed process does: no ack decision, and no sign of life any more.
    std::mem::forget(delivery);
    drop(dying);
    let mut other = subscriber(&server).declare_consumer(consumer);
    let again = next(&mut other).await;
    assert_eq!(place(&again), (1, Some(2)));
    again.ack().await.expect("accepted");
}

#[tokio::test]
async fn no_more_is_sent_ahead_than_was_asked_for() {
    let server = nats::start().await;
    send(&server, 1..=3).await;
    let mut subscriber = subscriber(&server).prefetch(2);
    let held = (next(&mut subscriber).await, next(&mut subscriber).await);
    assert!(timeout(QUIET, subscriber.next()).await.is_err(), "two are held");
    held.0.ack().await.expect("accepted");
    assert_eq!(place(&next(&mut subscriber).await), (3, Some(1)));
}

#[tokio::test]
async fn a_stopped_or_closed_subscriber_returns_what_it_has_and_accepts_late_acks() {
    let server = nats::start().await;
    send(&server, 1..=5).await;
    let mut first = subscriber(&server);
    let held = next(&mut first).await;
    first.stop();
    assert!(matches!(first.next().await, Ok(None)));
    let mut second = subscriber(&server);
    let delivery = next(&mut second).await;
    assert_eq!(place(&delivery), (2, Some(2)), "returned at once");
    delivery.ack().await.expect("accepted");
    timeout(SOON, second.close()).await.expect("closed");
    assert!(matches!(second.next().await, Ok(None)));
    let mut third = subscriber(&server);
    for expected in 3..=5 {
        let delivery = next(&mut third).await;
        assert_eq!(place(&delivery).0, expected);
        delivery.ack().await.expect("accepted");
    }
    drop(first);
    held.ack().await.expect("a late ack is accepted");
    let orders = client(&server).await.get_stream(STREAM).await.expect("it is there");
    tests::wait_until(SOON, "nothing is left", async || {
        let info = orders.consumer_info(CONSUMER).await.expect("described");
        tests::equals((info.num_ack_pending, info.num_pending), (0, 0))
    })
    .await;
}

#[tokio::test]
async fn a_returned_message_comes_after_the_delay_and_a_refused_one_never() {
    const DELAY: Duration = Duration::from_secs(1);
    let server = nats::start().await;
    send(&server, 1..=2).await;
    let mut subscriber = subscriber(&server).nack_delay(DELAY);
    let first = next(&mut subscriber).await;
    let returned = Instant::now();
    first.nack(true).await.expect("accepted");
    next(&mut subscriber).await.nack(false).await.expect("accepted");
    let again = next(&mut subscriber).await;
    assert_eq!(place(&again), (1, Some(2)));
    assert!(returned.elapsed() >= DELAY, "{:?}", returned.elapsed());
    again.reject("no order").await.expect("accepted");
    assert!(timeout(QUIET, subscriber.next()).await.is_err(), "both are done");
}

#[tokio::test]
async fn an_unreadable_or_too_large_message_is_given_with_its_bytes() {
    let server = nats::start().await;
    publisher(&server).publish(&full()).await.expect("confirmed");
    let context = client(&server).await;
    context.publish("orders", "not ours".into()).await.expect("sent").await.expect("stored");
    let mut subscriber = subscriber(&server).declare([stream()]).max_payload(12);
    let large = next(&mut subscriber).await;
    let error = large.message.as_ref().expect_err("larger than is read");
    assert!(error.contains("of at most 12"), "{error}");
    assert_eq!(large.raw.as_deref(), Some(&b"{\"total\":100}"[..]));
    large.ack().await.expect("accepted");
    let foreign = next(&mut subscriber).await;
    let error = foreign.message.as_ref().expect_err("no CloudEvent");
    assert!(error.contains("NatsSubscriber::plain"), "{error}");
    assert_eq!(foreign.raw.as_deref(), Some(&b"not ours"[..]));
    foreign.reject("foreign").await.expect("accepted");
}
