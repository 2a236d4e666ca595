//! What becomes of messages that were received: acknowledged, returned, rejected, left behind.

use crate::support::{
    STANDARD, VISIBILITY, client, full, message_with, next, next_at_last, nothing_comes, number,
    publish, publisher, start, subscriber, subscriber_at,
};
use outbox_core::transport::{Publisher, Subscriber};
use outbox_sqs::{DeadMessage, SqsQueue, SqsSubscriber};
use std::time::Duration;
use tests::{equals, servers::aws, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_takes_longer_than_the_visibility_timeout_keeps_its_message() {
    let server = start().await;
    publish(&publisher(&server), "k", [1]).await;
    let mut first = subscriber(&server);
    let delivery = next(&mut first).await;
    let mut other = subscriber(&server);
    let until = tokio::time::Instant::now() + VISIBILITY * 2;
    while tokio::time::Instant::now() < until {
        nothing_comes(&mut other).await;
    }
    delivery.ack().await.expect("acknowledged");
    nothing_comes(&mut other).await;
    assert_eq!(client(&server).depth(STANDARD).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returned_message_waits_for_its_delay_and_counts_one_delivery_more() {
    let server = start().await;
    publish(&publisher(&server), "k", [1]).await;
    let mut subscriber = subscriber(&server).nack_delay(Duration::from_secs(3));
    let delivery = next(&mut subscriber).await;
    assert_eq!(delivery.attempt, Some(1));
    delivery.nack(true).await.expect("returned");
    nothing_comes(&mut subscriber).await;
    let delivery = next(&mut subscriber).await;
    assert_eq!(delivery.attempt, Some(2));
    delivery.ack().await.expect("acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_message_is_a_dead_letter_with_its_cause_and_can_be_read() {
    for server in [aws::start().await, aws::start_moto().await] {
        let sent = full();
        publisher(&server).publish(&sent).await.expect("confirmed");
        let mut subscriber = subscriber(&server)
            .declare([SqsQueue::new(STANDARD), SqsQueue::new("dead")])
            .dead_letters("dead");
        let delivery = next(&mut subscriber).await;
        delivery.reject("the order does not exist").await.expect("acknowledged");
        assert_eq!(client(&server).depth(STANDARD).await, (0, 0));
        let mut dead = subscriber_at(&server.url(), "dead");
        let delivery = next(&mut dead).await;
        let message = delivery.message.as_ref().expect("readable");
        assert_eq!((message.id, &message.payload), (sent.id, &sent.payload));
        let cause = DeadMessage::of(message).expect("a dead letter");
        assert_eq!((cause.queue.as_str(), cause.deliveries), (STANDARD, 1));
        assert_eq!(cause.class, "Rejected");
        assert_eq!(cause.message, "the order does not exist");
        delivery.ack().await.expect("acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_redrive_policy_of_a_queue_makes_dead_letters_that_can_be_read() {
    // moto moves the message, and does not say from where.
    for (server, says_source) in [(aws::start().await, true), (aws::start_moto().await, false)] {
        let sent = full();
        publisher(&server)
            .declare([SqsQueue::new(STANDARD).dead_letters("dead", 2)])
            .publish(&sent)
            .await
            .expect("confirmed");
        let mut subscriber = SqsSubscriber::new(server.url(), STANDARD)
            .expect("a URL")
            .visibility_timeout(VISIBILITY)
            .wait_time(Duration::from_secs(1));
        for attempt in 1..=2 {
            let delivery = next(&mut subscriber).await;
            assert_eq!(delivery.attempt, Some(attempt));
            delivery.nack(true).await.expect("returned");
        }
        nothing_comes(&mut subscriber).await;
        let mut dead = subscriber_at(&server.url(), "dead");
        let delivery = next(&mut dead).await;
        let message = delivery.message.as_ref().expect("readable");
        assert_eq!(message.id, sent.id);
        let cause = DeadMessage::of(message);
        assert_eq!(cause.is_some(), says_source);
        if let Some(cause) = cause {
            assert!(cause.queue.ends_with(":orders"), "{cause:?}");
            assert_eq!(cause.class, "ReceivedTooOften");
        }
        delivery.ack().await.expect("acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_dead_letter_is_not_taken_stays() {
    let server = start().await;
    publish(&publisher(&server), "k", [1]).await;
    let mut subscriber = subscriber(&server).dead_letters("missing");
    let error = next(&mut subscriber).await.reject("no").await.expect_err("no such queue");
    let error = outbox_core::failure::full_text(&error);
    assert!(error.contains("the dead letter: queue `missing`"), "{error}");
    let delivery = next_at_last(&mut subscriber).await;
    assert_eq!((number(&delivery), delivery.attempt), (1, Some(2)));
    delivery.ack().await.expect("acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_subscriber_leaves_messages_visible_and_a_closed_one_returns_what_it_has() {
    let server = start().await;
    let publisher = publisher(&server);
    publish(&publisher, "k", [1]).await;
    let mut idle = subscriber(&server);
    next(&mut idle).await.ack().await.expect("acknowledged");
    publish(&publisher, "k", 2..=9).await;
    let client = client(&server);
    assert_eq!(client.depth(STANDARD).await, (8, 0), "nobody has asked for more");
    let delivery = next(&mut idle).await;
    assert!(client.depth(STANDARD).await.1 > 0, "several were received at once");
    delivery.ack().await.expect("acknowledged");
    idle.close().await;
    assert!(idle.next().await.expect("closed").is_none());
    assert_eq!(client.depth(STANDARD).await, (7, 0), "what was not handed out is visible again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_acknowledgements_at_once_share_requests() {
    const MESSAGES: usize = 40;
    let server = start().await;
    let batch: Vec<_> = (0..MESSAGES).map(|_| message_with(|_| {})).collect();
    let mut sent = Vec::new();
    for mut message in batch {
        let mut parts = message.into_parts();
        parts.id = outbox_core::event::MessageId::generate();
        message = outbox_core::event::Message::new(parts);
        sent.push(message);
    }
    let outcomes = outbox_core::transport::publish_all(&publisher(&server), &sent).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let mut subscriber = subscriber(&server);
    let mut deliveries = Vec::new();
    while deliveries.len() < MESSAGES {
        deliveries.push(next(&mut subscriber).await);
    }
    let acks = deliveries.into_iter().map(outbox_core::transport::Delivery::ack);
    for acked in futures_util::future::join_all(acks).await {
        acked.expect("acknowledged");
    }
    let client = client(&server);
    let empty = async || equals(client.depth(STANDARD).await, (0, 0));
    wait_until(crate::support::SOON, "all are deleted", empty).await;
}
