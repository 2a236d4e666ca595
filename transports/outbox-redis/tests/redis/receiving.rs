//! Ack decisions, order of keys, dead letters.

use crate::support::{
    GROUP, STREAM, client, next, nothing_comes, number, publish, publisher, subscriber,
};
use outbox_core::transport::{Delivery, Subscriber};
use outbox_redis::{DeadEntry, RedisSubscriber};
use tests::servers::redis as server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_entry_of_a_key_is_out_at_a_time_and_a_returned_one_goes_first() {
    let server = server::start().await;
    let publisher = publisher(&server);
    publish(&publisher, "a", 1..=3).await;
    publish(&publisher, "b", 11..=12).await;
    let mut subscriber = subscriber(&server);
    let (a, b) = (next(&mut subscriber).await, next(&mut subscriber).await);
    assert_eq!((number(&a), number(&b)), (1, 11));
    nothing_comes(&mut subscriber).await;
    a.nack(true).await.expect("returned");
    let a = next(&mut subscriber).await;
    assert_eq!((number(&a), a.attempt), (1, Some(2)));
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
async fn next_of(subscriber: &mut RedisSubscriber, key: &str) -> Delivery {
    loop {
        let delivery = next(subscriber).await;
        if delivery.message.as_ref().expect("readable").key.as_deref() == Some(key) {
            return delivery;
        }
        delivery.ack().await.expect("acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_entry_is_a_dead_letter_with_its_cause_and_may_die_again() {
    let server = server::start().await;
    let client = client(&server).await;
    publish(&publisher(&server), "k", 1..=2).await;
    let mut first = subscriber(&server).dead_letters("orders:dead");
    let rejected = next(&mut first).await;
    let (id, headers) = {
        let message = rejected.message.as_ref().expect("readable");
        (message.id, message.headers.clone())
    };
    rejected.nack(true).await.expect("returned");
    next(&mut first).await.reject("no such\ncustomer").await.expect("acknowledged");
    next(&mut first).await.nack(false).await.expect("acknowledged");
    nothing_comes(&mut first).await;
    assert_eq!(client.pending().await, 0);

    let dead = |stream: &str, next: &str| {
        let subscriber = RedisSubscriber::new(server.url(), "operators").expect("a URL");
        subscriber.stream(stream).dead_letters(next)
    };
    let mut operators = dead("orders:dead", "orders:buried");
    let letter = next(&mut operators).await;
    let message = letter.message.as_ref().expect("readable");
    let cause = DeadEntry::of(message).expect("it has one");
    assert_eq!(
        (cause.stream.as_str(), cause.group.as_str(), cause.class.as_str(), cause.deliveries),
        (STREAM, GROUP, "Rejected", 2)
    );
    assert_eq!(cause.message, "no such customer");
    let original: Vec<(String, redis::Value)> =
        client.ask(&format!("XRANGE {STREAM} {0} {0}", cause.entry)).await;
    assert_eq!(original.len(), 1, "it names the original entry: {cause:?}");
    assert_eq!(message.id, id);
    assert!(headers.iter().all(|(name, value)| message.headers.get(name) == Some(value)));
    letter.reject("still not").await.expect("acknowledged");
    let letter = next(&mut operators).await;
    let cause = DeadEntry::of(letter.message.as_ref().expect("readable")).expect("a cause");
    assert_eq!(cause.class, "NotHandled");
    letter.ack().await.expect("acknowledged");

    let buried = next(&mut dead("orders:buried", "orders:gone")).await;
    let cause = DeadEntry::of(buried.message.as_ref().expect("readable")).expect("a cause");
    assert_eq!((cause.stream.as_str(), cause.message.as_str()), ("orders:dead", "still not"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_whose_dead_letter_is_not_taken_is_delivered_again() {
    let server = server::start().await;
    let client = client(&server).await;
    client.ask::<()>("SET orders:dead text").await;
    publish(&publisher(&server), "k", 1..=1).await;
    let mut subscriber = subscriber(&server).dead_letters("orders:dead");
    let error = next(&mut subscriber).await.reject("no").await.expect_err("no stream");
    let error = outbox_core::failure::full_text(&error);
    assert!(error.contains("the dead letter: stream `orders:dead`"), "{error}");
    client.ask::<()>("DEL orders:dead").await;
    let again = next(&mut subscriber).await;
    assert_eq!((number(&again), again.attempt), (1, Some(2)));
    again.reject("no").await.expect("acknowledged");
    assert_eq!(client.ask::<u64>("XLEN orders:dead").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_entries_stay_in_their_stream_or_are_deleted_where_configured() {
    let server = server::start().await;
    let client = client(&server).await;
    publish(&publisher(&server), "k", 1..=2).await;
    let mut keeping = subscriber(&server);
    next(&mut keeping).await.ack().await.expect("acknowledged");
    keeping.close().await;
    assert_eq!(client.ask::<u64>("XLEN orders").await, 2);
    let mut deleting = subscriber(&server).delete_acknowledged();
    next(&mut deleting).await.ack().await.expect("acknowledged");
    assert_eq!(client.ask::<u64>("XLEN orders").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_key_leaves_room_to_the_others() {
    let server = server::start().await;
    let publisher = publisher(&server);
    publish(&publisher, "stuck", 1..=10).await;
    publish(&publisher, "free", 101..=103).await;
    let mut subscriber = subscriber(&server).prefetch(8);
    let stuck = next(&mut subscriber).await;
    assert_eq!(number(&stuck), 1);
    for n in 101..=103 {
        let delivery = next(&mut subscriber).await;
        assert_eq!(number(&delivery), n);
        delivery.ack().await.expect("acknowledged");
    }
    stuck.ack().await.expect("acknowledged");
}
