//! Consumers of a group that come, go, die and stand still.

use crate::support::{
    GROUP, QUIET, SOON, STREAM, client, next, next_at_last, nothing_comes, number, numbered,
    publish, publisher, subscriber,
};
use outbox_core::{
    failure::full_text,
    testing::Recorder,
    transport::{Publisher, Subscriber},
};
use outbox_redis::RedisSubscriber;
use redis::Value;
use std::{collections::BTreeSet, time::Duration};
use tests::{
    servers::{Server, redis as server},
    wait_until,
};

/// Time after which entries are claimed, short for the tests.
const CLAIM_AFTER: Duration = Duration::from_millis(500);

fn impatient(server: &Server) -> RedisSubscriber {
    subscriber(server).claim_after(CLAIM_AFTER)
}

/// Reads entries as a consumer that dies with them.
async fn read_and_die(server: &Server, consumer: &str, count: usize) {
    let client = client(server).await;
    let read = format!("XREADGROUP GROUP {GROUP} {consumer} COUNT {count} STREAMS {STREAM} >");
    let entries: Value = client.ask(&read).await;
    assert!(matches!(entries, Value::Array(_)), "{entries:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_entries_of_a_consumer_that_died_are_claimed_in_order_and_counted() {
    let server = server::start().await;
    let (publisher, client) = (publisher(&server), client(&server).await);
    publish(&publisher, "k", 1..=3).await;
    client.ask::<()>(&format!("XGROUP CREATE {STREAM} {GROUP} 0")).await;
    read_and_die(&server, "dead", 2).await;
    let mut subscriber = impatient(&server);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let delivery = next(&mut subscriber).await;
        seen.push((number(&delivery), delivery.attempt));
        delivery.ack().await.expect("acknowledged");
    }
    seen.sort_unstable();
    assert_eq!(seen, [(1, Some(2)), (2, Some(2)), (3, Some(1))]);
    assert_eq!(client.pending().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_comes_back_under_its_name_has_its_entries_at_once_and_first() {
    let server = server::start().await;
    let (publisher, client) = (publisher(&server), client(&server).await);
    publish(&publisher, "k", 1..=5).await;
    client.ask::<()>(&format!("XGROUP CREATE {STREAM} {GROUP} 0")).await;
    read_and_die(&server, "pod-0", 3).await;
    // Nobody claims for an hour.
    let mut again = subscriber(&server).consumer("pod-0").claim_after(Duration::from_hours(1));
    for n in 1..=5 {
        let delivery = next(&mut again).await;
        let attempt = if n <= 3 { 2 } else { 1 };
        assert_eq!((number(&delivery), delivery.attempt), (n, Some(attempt)));
        delivery.ack().await.expect("acknowledged");
    }
    assert_eq!(client.pending().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_handler_keeps_its_entry_and_those_that_wait_behind_it() {
    let server = server::start().await;
    publish(&publisher(&server), "k", 1..=2).await;
    let consumer = || subscriber(&server).claim_after(QUIET);
    let mut slow = consumer();
    let held = next(&mut slow).await;
    let mut other = consumer();
    // Three times as long as others wait for a dead one.
    for _ in 0..3 {
        nothing_comes(&mut other).await;
    }
    held.ack().await.expect("acknowledged");
    let second = next(&mut slow).await;
    assert_eq!((number(&second), second.attempt), (2, Some(1)));
    second.ack().await.expect("acknowledged");
    assert_eq!(client(&server).await.pending().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_ends_releases_what_waits_at_once_and_what_is_in_flight_when_it_is_returned()
 {
    let server = server::start().await;
    publish(&publisher(&server), "k", 1..=3).await;
    // Nobody claims what is not released.
    let patient = || subscriber(&server).claim_after(Duration::from_hours(1));
    let mut first = patient();
    let held = next(&mut first).await;
    assert_eq!(number(&held), 1);
    first.close().await;
    assert!(matches!(first.next().await, Ok(None)), "it is closed");
    let mut second = patient();
    for n in 2..=3 {
        let delivery = next(&mut second).await;
        assert_eq!(number(&delivery), n);
        delivery.ack().await.expect("acknowledged");
    }
    nothing_comes(&mut second).await;
    drop(held);
    let delivery = next(&mut second).await;
    assert_eq!((number(&delivery), delivery.attempt), (1, Some(2)));
    delivery.ack().await.expect("acknowledged");
    assert_eq!(client(&server).await.pending().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_deleted_while_it_is_read_is_made_again_and_nothing_is_lost() {
    let server = server::start().await;
    let (publisher, client) = (publisher(&server), client(&server).await);
    let mut subscriber = subscriber(&server);
    publish(&publisher, "k", 1..=1).await;
    next(&mut subscriber).await.ack().await.expect("acknowledged");

    client.ask::<u64>(&format!("XGROUP DESTROY {STREAM} {GROUP}")).await;
    publish(&publisher, "k", 2..=2).await;
    let seen = seen_until(&mut subscriber, 2).await;
    assert!(seen.contains(&2), "{seen:?}");

    // And its stream with it.
    client.ask::<u64>(&format!("DEL {STREAM}")).await;
    publish(&publisher, "k", 3..=3).await;
    let seen = seen_until(&mut subscriber, 3).await;
    assert_eq!(seen, BTreeSet::from([3]), "the stream is a new one");
    assert_eq!(client.pending().await, 0);
}

/// Acknowledges deliveries until the one with a number has come.
async fn seen_until(subscriber: &mut RedisSubscriber, last: i64) -> BTreeSet<i64> {
    let mut seen = BTreeSet::new();
    while !seen.contains(&last) {
        let delivery = next_at_last(subscriber).await;
        seen.insert(number(&delivery));
        delivery.ack().await.expect("acknowledged");
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_of_an_entry_that_is_no_longer_pending_says_so() {
    let server = server::start().await;
    let client = client(&server).await;
    publish(&publisher(&server), "k", 1..=1).await;
    let mut subscriber = subscriber(&server);
    let held = next(&mut subscriber).await;
    let entries: Vec<(String, Value)> = client.ask(&format!("XRANGE {STREAM} - +")).await;
    client.ask::<u64>(&format!("XACK {STREAM} {GROUP} {}", entries[0].0)).await;
    let error = full_text(&held.ack().await.expect_err("it is not pending"));
    assert!(error.contains("no longer pending"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_are_trimmed_while_they_are_pending_hold_nothing_up() {
    let server = server::start().await;
    let (publisher, client) = (publisher(&server), client(&server).await);
    publish(&publisher, "k", 1..=3).await;
    client.ask::<()>(&format!("XGROUP CREATE {STREAM} {GROUP} 0")).await;
    read_and_die(&server, "dead", 1).await;
    read_and_die(&server, "pod-0", 1).await;
    client.ask::<u64>(&format!("XTRIM {STREAM} MAXLEN 1")).await;
    let mut subscriber = impatient(&server).consumer("pod-0");
    let delivery = next(&mut subscriber).await;
    assert_eq!(number(&delivery), 3);
    delivery.ack().await.expect("acknowledged");
    let empty = async || tests::equals(client.pending().await, 0);
    tokio::select! {
        came = subscriber.next() => panic!("nothing was to come, but: {came:?}"),
        () = wait_until(SOON, "nothing is pending", empty) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_new_begins_with_the_oldest_entry_or_at_the_end_of_its_stream() {
    let server = server::start().await;
    let publisher = publisher(&server);
    publish(&publisher, "k", 1..=1).await;
    let group =
        |name: &str| RedisSubscriber::new(server.url(), name).expect("a URL").stream(STREAM);
    let mut from_the_end = group("end").start_at_end();
    nothing_comes(&mut from_the_end).await;
    publish(&publisher, "k", 2..=2).await;
    assert_eq!(number(&next(&mut from_the_end).await), 2);
    let mut from_the_beginning = group("beginning");
    assert_eq!(number(&next(&mut from_the_beginning).await), 1);
}

/// Kills the connections of all other clients.
async fn cut(server: &Server) {
    client(server).await.ask::<u64>("CLIENT KILL TYPE normal SKIPME yes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_again_and_again_lose_nothing() {
    const MESSAGES: i64 = 400;
    let server = server::start().await;
    let (publisher, recorder) = (publisher(&server), Recorder::new());
    let mut subscriber = impatient(&server);
    let publish = async {
        for n in 1..=MESSAGES {
            while publisher.publish(&numbered(n, &format!("k{}", n % 7))).await.is_err() {}
        }
    };
    let cut_again = async {
        for cuts in 1..=5 {
            recorder.wait_for(cuts * 40, SOON).await.expect("it goes on");
            cut(&server).await;
        }
    };
    let receive = async {
        let all = usize::try_from(MESSAGES).expect("few");
        while recorder.distinct() < all {
            if let Ok(Some(delivery)) = subscriber.next().await {
                recorder.take(delivery).await;
            }
        }
    };
    let all = async { tokio::join!(publish, cut_again, receive) };
    let came = tokio::time::timeout(SOON, all).await;
    assert!(came.is_ok(), "{} of {MESSAGES} came", recorder.distinct());
    let client = client(&server).await;
    let rest = async {
        while client.pending().await > 0 {
            if let Ok(Ok(Some(delivery))) = tokio::time::timeout(QUIET, subscriber.next()).await {
                recorder.take(delivery).await;
            }
        }
    };
    tokio::time::timeout(SOON, rest).await.expect("nothing stays pending");
}
