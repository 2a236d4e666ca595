//! Order of each key in a FIFO queue, also where something fails.

use crate::support::{
    FIFO, SOON, VISIBILITY, client, message_with, next, number, numbered, publish, publisher_at,
    start, subscriber_at,
};
use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
use outbox_core::{
    failure::FailureClass::Transient,
    transport::{PublishError, Publisher, Subscriber, publish_all},
};
use outbox_sqs::SqsPublisher;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tests::servers::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returned_message_comes_again_before_the_later_ones_of_its_key() {
    let server = start().await;
    publish(&publisher_at(&server.url(), FIFO), "k", 1..=4).await;
    let mut subscriber = subscriber_at(&server.url(), FIFO);
    let mut seen = Vec::new();
    let mut returned = false;
    while seen.len() < 5 {
        let delivery = next(&mut subscriber).await;
        seen.push((number(&delivery), delivery.attempt));
        if number(&delivery) == 2 && !returned {
            returned = true;
            delivery.nack(true).await.expect("returned");
        } else {
            delivery.ack().await.expect("acknowledged");
        }
    }
    let numbers: Vec<i64> = seen.iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, [1, 2, 2, 3, 4]);
    assert_eq!((seen[1].1, seen[2].1), (Some(1), Some(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_at_work_holds_up_no_other_and_its_own_messages_wait() {
    let server = start().await;
    let publisher = publisher_at(&server.url(), FIFO);
    publish(&publisher, "slow", 1..=3).await;
    publish(&publisher, "quick", 11..=13).await;
    let mut subscriber = subscriber_at(&server.url(), FIFO);
    let mut slow = None;
    let mut quick = Vec::new();
    while quick.len() < 3 {
        let delivery = next(&mut subscriber).await;
        match number(&delivery) {
            1 => slow = Some(delivery),
            n => {
                quick.push(n);
                delivery.ack().await.expect("acknowledged");
            }
        }
    }
    assert_eq!(quick, [11, 12, 13]);
    slow.expect("it came").ack().await.expect("acknowledged");
    assert_eq!(number(&next(&mut subscriber).await), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_subscriber_leaves_behind_comes_to_the_next_one_in_order() {
    let server = start().await;
    publish(&publisher_at(&server.url(), FIFO), "k", 1..=6).await;
    let mut first = subscriber_at(&server.url(), FIFO);
    let delivery = next(&mut first).await;
    assert_eq!(number(&delivery), 1);
    drop(delivery);
    first.close().await;
    let mut second = subscriber_at(&server.url(), FIFO);
    for n in 1..=6 {
        let delivery = next(&mut second).await;
        assert_eq!(number(&delivery), n);
        delivery.ack().await.expect("acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_within_the_window_is_confirmed_and_stored_once() {
    let server = start().await;
    let publisher = publisher_at(&server.url(), FIFO);
    let sent = numbered(1, "k");
    for _ in 0..3 {
        publisher.publish(&sent).await.expect("confirmed");
    }
    assert_eq!(client(&server).depth(FIFO).await, (1, 0));
}

/// A service that refuses some entries of its own accord, and notes what it has taken.
#[derive(Clone, Default)]
struct Moody {
    refused: Arc<Mutex<BTreeMap<i64, usize>>>,
    taken: Arc<Mutex<Vec<(String, i64)>>>,
    requests: Arc<Mutex<Vec<usize>>>,
}

impl Moody {
    async fn serve(self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("sqs+http://{}", listener.local_addr().expect("an address"));
        let reply = move |headers: HeaderMap, body: Bytes| {
            let reply = self.reply(&headers, &body);
            async move { ([("content-type", "application/x-amz-json-1.0")], reply) }
        };
        let router = Router::new().route("/", post(reply));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn reply(&self, headers: &HeaderMap, body: &[u8]) -> String {
        let target = headers.get("x-amz-target").and_then(|t| t.to_str().ok()).unwrap_or_default();
        if target.ends_with("GetQueueUrl") {
            return serde_json::json!({ "QueueUrl": "http://127.0.0.1/1/orders.fifo" }).to_string();
        }
        let request: serde_json::Value = serde_json::from_slice(body).expect("JSON");
        let entries = request["Entries"].as_array().expect("a batch");
        self.requests.lock().expect("no panic").push(entries.len());
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for entry in entries {
            let event: serde_json::Value =
                serde_json::from_str(entry["MessageBody"].as_str().expect("a body")).expect("JSON");
            let n = event["data"]["n"].as_i64().expect("a number");
            let group = entry["MessageGroupId"].as_str().expect("a group").to_owned();
            let mut refused = self.refused.lock().expect("no panic");
            match refused.get_mut(&n).filter(|left| **left > 0) {
                Some(left) => {
                    *left -= 1;
                    failed.push(serde_json::json!({
                        "Id": entry["Id"], "SenderFault": false, "Code": "InternalError",
                    }));
                }
                None => {
                    self.taken.lock().expect("no panic").push((group, n));
                    successful.push(serde_json::json!({
                        "Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "d",
                    }));
                }
            }
        }
        serde_json::json!({ "Successful": successful, "Failed": failed }).to_string()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_taken_in_part_changes_no_order_of_a_key_and_blocks_no_other_key() {
    let service = Moody::default();
    service.refused.lock().expect("no panic").insert(2, 1);
    let publisher = SqsPublisher::new(service.clone().serve().await).expect("a URL").queue(FIFO);
    // Three of one key in one call, which the relay never does, among others.
    let batch: Vec<_> = [(1, "a"), (2, "a"), (3, "a"), (10, "b"), (11, "b"), (20, "c")]
        .map(|(n, key)| numbered(n, key))
        .to_vec();
    let outcomes = publish_all(&publisher, &batch).await;
    let classes: Vec<_> =
        outcomes.iter().map(|outcome| outcome.as_ref().err().map(PublishError::class)).collect();
    assert_eq!(classes, [None, Some(Transient), Some(Transient), None, None, None]);
    let not_sent = outcomes[2].as_ref().expect_err("held back").to_string();
    assert!(not_sent.contains("an earlier message of its key"), "{not_sent}");
    // As a relay does: again what was not confirmed.
    let again = publish_all(&publisher, &batch[1..=2]).await;
    assert!(again.iter().all(Result::is_ok), "{again:?}");
    let taken = service.taken.lock().expect("no panic").clone();
    for (key, expected) in [("a", vec![1, 2, 3]), ("b", vec![10, 11]), ("c", vec![20])] {
        let of_key = taken.iter().filter(|(group, _)| group == key);
        assert_eq!(of_key.map(|(_, n)| *n).collect::<Vec<_>>(), expected, "{taken:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_many_keys_go_ten_in_a_request_and_each_has_its_own_outcome() {
    let service = Moody::default();
    service.refused.lock().expect("no panic").extend([(7, 1), (19, 1)]);
    let publisher = SqsPublisher::new(service.clone().serve().await).expect("a URL").queue(FIFO);
    let batch: Vec<_> = (0..25).map(|n| numbered(n, &format!("k{n}"))).collect();
    let outcomes = publish_all(&publisher, &batch).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        let class = outcome.as_ref().err().map(PublishError::class);
        assert_eq!(class, [7, 19].contains(&n).then_some(Transient), "{n}: {outcome:?}");
    }
    let mut requests = service.requests.lock().expect("no panic").clone();
    requests.sort_unstable();
    assert_eq!(requests, [5, 10, 10]);
}

async fn declared(server: &Server) -> SqsPublisher {
    let publisher = publisher_at(&server.url(), FIFO);
    publisher.publish(&message_with(|m| m.key = None)).await.expect("confirmed");
    publisher
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_without_a_key_wait_for_none() {
    let server = start().await;
    let publisher = declared(&server).await;
    publisher.publish(&message_with(|m| m.key = None)).await.expect("confirmed");
    let mut subscriber = subscriber_at(&server.url(), FIFO);
    let both = [next(&mut subscriber).await, next(&mut subscriber).await];
    for delivery in both {
        delivery.ack().await.expect("acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returned_message_that_has_to_wait_keeps_its_key_waiting_and_no_other() {
    const DELAY: Duration = VISIBILITY;
    let server = start().await;
    let publisher = publisher_at(&server.url(), FIFO);
    publish(&publisher, "k", 1..=2).await;
    let mut subscriber = subscriber_at(&server.url(), FIFO).nack_delay(DELAY);
    let first = next(&mut subscriber).await;
    assert_eq!(number(&first), 1);
    let since = tokio::time::Instant::now();
    first.nack(true).await.expect("returned");
    publish(&publisher, "other", [9]).await;
    let other = next(&mut subscriber).await;
    assert_eq!(number(&other), 9);
    other.ack().await.expect("acknowledged");
    let again = tokio::time::timeout(SOON, next(&mut subscriber)).await.expect("it comes again");
    assert_eq!((number(&again), again.attempt), (1, Some(2)));
    assert!(since.elapsed() >= DELAY - Duration::from_millis(500), "{:?}", since.elapsed());
}
