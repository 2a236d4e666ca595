//! Ack decisions, order of keys, sessions, dead letters.

use crate::{
    fake::Forgetful,
    support::{
        CLIENT, Client, SOON, TOPIC, connected, lost, message_with, next, next_at_last,
        nothing_comes, number, publish, publisher, subscribed, subscriber,
    },
};
use outbox_core::{
    failure::full_text,
    transport::{Delivery, Publisher, Subscriber, publish_all},
};
use outbox_mqtt::{MqttDeadMessage, MqttPublisher, MqttSubscriber};
use rumqttc::mqttbytes::v5::PublishProperties;
use std::time::{Duration, Instant};
use tests::servers::{Server, mosquitto};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_of_a_key_is_out_at_a_time_and_a_returned_one_goes_first() {
    let server = mosquitto::start().await;
    let mut subscriber = subscribed(&server).await;
    let publisher = publisher(&server);
    publish(&publisher, "a", 1..=3).await;
    publish(&publisher, "b", 11..=12).await;
    let (a, b) = (next(&mut subscriber).await, next(&mut subscriber).await);
    assert_eq!((number(&a), number(&b)), (1, 11));
    nothing_comes(&mut subscriber).await;
    a.nack(true).await.expect("returned");
    let a = next(&mut subscriber).await;
    assert_eq!((number(&a), a.attempt), (1, None), "MQTT counts nothing");
    b.ack().await.expect("acknowledged");
    assert_eq!(number(&next(&mut subscriber).await), 12);
    drop(a);
    for n in 1..=3 {
        let delivery = next_of(&mut subscriber, "a").await;
        assert_eq!(number(&delivery), n);
        delivery.ack().await.expect("acknowledged");
    }
}

/// Waits for the next delivery of a key, and acknowledges those of others.
async fn next_of(subscriber: &mut MqttSubscriber, key: &str) -> Delivery {
    loop {
        let delivery = next(subscriber).await;
        if delivery.message.as_ref().expect("readable").key.as_deref() == Some(key) {
            return delivery;
        }
        delivery.ack().await.expect("acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returned_message_comes_after_the_delay_and_its_key_waits_behind_it() {
    const DELAY: Duration = Duration::from_millis(700);
    let server = mosquitto::start().await;
    let mut subscriber = connected(subscriber(&server).nack_delay(DELAY)).await;
    let publisher = publisher(&server);
    publish(&publisher, "a", 1..=2).await;
    publish(&publisher, "b", 11..=11).await;
    let first = next(&mut subscriber).await;
    let returned = Instant::now();
    first.nack(true).await.expect("returned");
    assert_eq!(number(&next(&mut subscriber).await), 11, "another key goes on");
    let again = next(&mut subscriber).await;
    assert!(number(&again) == 1 && returned.elapsed() >= DELAY, "{:?}", returned.elapsed());
    again.ack().await.expect("acknowledged");
    assert_eq!(number(&next(&mut subscriber).await), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unacknowledged_messages_come_again_at_once_to_the_same_client_and_done_ones_do_not() {
    let server = mosquitto::start().await;
    let mut first = subscribed(&server).await;
    publish(&publisher(&server), "k", 1..=5).await;
    next(&mut first).await.ack().await.expect("acknowledged");
    let held = next(&mut first).await;
    // What a killed process does: no ack decision, and no orderly end.
    std::mem::forget(held);
    std::mem::forget(first);
    let mut second = subscribed(&server).await;
    for n in 2..=5 {
        let delivery = next(&mut second).await;
        assert_eq!(number(&delivery), n);
        delivery.ack().await.expect("acknowledged");
    }
    nothing_comes(&mut second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_handled_behind_a_slow_message_is_not_delivered_again_after_a_lost_connection() {
    let server = mosquitto::start().await;
    let mut subscriber = subscribed(&server).await;
    let publisher = publisher(&server);
    for n in 1..=4 {
        publish(&publisher, &format!("k{n}"), n..=n).await;
    }
    let slow = next(&mut subscriber).await;
    for n in 2..=4 {
        let delivery = next(&mut subscriber).await;
        assert_eq!(number(&delivery), n);
        delivery.ack().await.expect("taken, and kept back behind the first one");
    }
    // Another client takes the session, and ends it without a word about these.
    let thief = connected(MqttSubscriber::new(server.url(), CLIENT).expect("a URL").topic(TOPIC));
    drop(thief.await);
    let text = lost(&mut subscriber).await;
    assert!(text.contains("another client has the client id `billing-1`"), "{text}");
    let late = full_text(&slow.ack().await.expect_err("its connection is gone"));
    assert!(late.contains("delivered again"), "{late}");
    let again = next(&mut subscriber).await;
    assert_eq!(number(&again), 1);
    nothing_comes(&mut subscriber).await;
    again.ack().await.expect("acknowledged");
    subscriber.close().await;
    let mut next_process = subscribed(&server).await;
    nothing_comes(&mut next_process).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_does_not_come_again_though_the_connection_is_lost_on_the_way() {
    let server = Forgetful::start().await;
    let publisher = MqttPublisher::new(server.url()).expect("a URL");
    for n in 1..=3 {
        publish(&publisher, &format!("k{n}"), n..=n).await;
    }
    let subscriber = MqttSubscriber::new(server.url(), CLIENT).expect("a URL").topic(TOPIC);
    let mut subscriber = connected(subscriber).await;
    let slow = next(&mut subscriber).await;
    for n in 2..=3 {
        let delivery = next(&mut subscriber).await;
        assert_eq!(number(&delivery), n);
        delivery.ack().await.expect("taken, and kept back behind the first one");
    }
    slow.ack().await.expect_err("the acknowledgements of all three are lost");
    let again = next_at_last(&mut subscriber).await;
    assert_eq!(number(&again), 1);
    again.ack().await.expect("acknowledged");
    nothing_comes(&mut subscriber).await;
}

/// With two messages at most without an acknowledgement, holds the first and acknowledges the
/// second; tells whether the third comes.
async fn third_comes(configure: impl FnOnce(MqttSubscriber) -> MqttSubscriber) -> bool {
    let server = mosquitto::start().await;
    let subscriber = configure(subscriber(&server).receive_maximum(2));
    let mut subscriber = connected(subscriber).await;
    let publisher = publisher(&server);
    for n in 1..=3 {
        publish(&publisher, &format!("k{n}"), n..=n).await;
    }
    let slow = next(&mut subscriber).await;
    next(&mut subscriber).await.ack().await.expect("acknowledged");
    let third = timeout(Duration::from_millis(700), subscriber.next()).await;
    slow.ack().await.expect("acknowledged");
    if third.is_err() {
        assert_eq!(number(&next(&mut subscriber).await), 3, "it comes when the first is done");
    }
    third.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_keep_the_order_of_arrival_unless_told_otherwise() {
    assert!(!third_comes(|subscriber| subscriber).await, "the receive maximum is kept to");
    assert!(third_comes(MqttSubscriber::acknowledge_out_of_order).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_message_is_a_dead_letter_with_its_cause_and_may_die_again() {
    let server = mosquitto::start().await;
    let mut first = connected(subscriber(&server).dead_letters("dead")).await;
    publish(&publisher(&server), "k", 1..=2).await;
    // Where nobody takes the letter, nothing is lost.
    let error = next(&mut first).await.reject("too early").await.expect_err("no letter");
    assert!(full_text(&error).contains("no subscription takes the topic `dead`"), "{error:?}");
    let letters = MqttSubscriber::new(server.url(), "letters").expect("a URL").topic("dead");
    let mut letters = connected(letters.dead_letters("dead")).await;

    let rejected = next(&mut first).await;
    let (id, headers) = {
        let message = rejected.message.as_ref().expect("readable");
        (message.id, message.headers.clone())
    };
    rejected.reject("no such\ncustomer").await.expect("acknowledged");
    next(&mut first).await.nack(false).await.expect("acknowledged");
    nothing_comes(&mut first).await;
    for (class, reason) in
        [("Rejected", "no such customer"), ("NotHandled", "it was not handled and not returned")]
    {
        let letter = next(&mut letters).await;
        let message = letter.message.as_ref().expect("readable");
        let cause = MqttDeadMessage::of(message).expect("it is a dead letter");
        assert_eq!((cause.topic.as_str(), cause.client.as_str()), (TOPIC, CLIENT));
        assert_eq!((cause.class.as_str(), cause.message.as_str()), (class, reason));
        if class == "Rejected" {
            assert_eq!(message.id, id);
            assert!(headers.iter().all(|(name, value)| message.headers.get(name) == Some(value)));
            letter.reject("again").await.expect("acknowledged");
        } else {
            letter.ack().await.expect("acknowledged");
        }
    }
    let again = next(&mut letters).await;
    let cause =
        MqttDeadMessage::of(again.message.as_ref().expect("readable")).expect("a dead letter");
    assert_eq!((cause.topic.as_str(), cause.message.as_str()), ("dead", "again"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_or_closed_subscriber_leaves_what_it_has_and_accepts_late_acks() {
    let server = mosquitto::start().await;
    let mut first = subscribed(&server).await;
    let publisher = publisher(&server);
    for n in 1..=4 {
        publish(&publisher, &format!("k{n}"), n..=n).await;
    }
    let held = next(&mut first).await;
    first.stop();
    assert!(matches!(first.next().await, Ok(None)));
    held.ack().await.expect("a late ack is accepted");
    let mut second = subscribed(&server).await;
    let delivery = next(&mut second).await;
    assert_eq!(number(&delivery), 2);
    delivery.ack().await.expect("acknowledged");
    timeout(SOON, second.close()).await.expect("closed");
    assert!(matches!(second.next().await, Ok(None)));
    let mut third = subscribed(&server).await;
    for n in 3..=4 {
        let delivery = next(&mut third).await;
        assert_eq!(number(&delivery), n);
        delivery.ack().await.expect("acknowledged");
    }
    nothing_comes(&mut third).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_session_gets_new_topics_and_what_was_published_while_it_was_away() {
    let server = mosquitto::start().await;
    subscribed(&server).await.close().await;
    let publisher = publisher(&server).topic(|message| match message.key.as_deref() {
        Some("more") => "more/a/b".to_owned(),
        _ => TOPIC.to_owned(),
    });
    publish(&publisher, "k", 1..=1).await;
    let mut more = connected(subscriber(&server).topic("more/#")).await;
    publish(&publisher, "more", 2..=2).await;
    for n in 1..=2 {
        let delivery = next(&mut more).await;
        assert_eq!(number(&delivery), n);
        delivery.ack().await.expect("acknowledged");
    }
}

/// Publishes by a client that is not the transport's, as it likes.
async fn foreign(server: &Server, body: &'static str) {
    let mut client = Client::connect(server, "stranger", None).await;
    client.publish(PublishProperties::default(), body).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_or_too_large_message_is_given_with_its_bytes() {
    let server = mosquitto::start().await;
    let mut subscriber = connected(subscriber(&server).max_payload(12)).await;
    publish(&publisher(&server), "k", 1..=1).await;
    next(&mut subscriber).await.ack().await.expect("small");
    let large = message_with(|m| m.payload = "x".repeat(13).into());
    publisher(&server).publish(&large).await.expect("confirmed");
    let delivery = next(&mut subscriber).await;
    let error = delivery.message.as_ref().expect_err("larger than is read");
    assert!(error.contains("13 bytes, of at most 12"), "{error}");
    assert_eq!(delivery.raw.as_deref(), Some("x".repeat(13).as_bytes()));
    delivery.ack().await.expect("acknowledged");
    foreign(&server, "not ours").await;
    let delivery = next(&mut subscriber).await;
    assert_eq!(delivery.raw.as_deref(), Some(&b"not ours"[..]));
    delivery.reject("foreign").await.expect("acknowledged");
    nothing_comes(&mut subscriber).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_32_mib_that_wait_stop_the_reading_and_nothing_is_lost() {
    const MESSAGES: usize = 50;
    let server = mosquitto::start().await;
    let mut subscriber = subscribed(&server).await;
    let publisher = publisher(&server);
    let batch: Vec<_> = (0..MESSAGES)
        .map(|n| {
            message_with(|m| {
                m.key = Some(format!("k{n}"));
                m.payload = vec![b'x'; 1 << 20].into();
            })
        })
        .collect();
    let receive = async {
        for _ in 0..MESSAGES {
            next(&mut subscriber).await.ack().await.expect("acknowledged");
        }
    };
    // All are there before the first is handled.
    let outcomes = timeout(SOON, publish_all(&publisher, &batch)).await.expect("in time");
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    timeout(SOON, receive).await.expect("all come");
}
