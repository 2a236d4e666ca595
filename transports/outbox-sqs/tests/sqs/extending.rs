//! Messages whose handlers run for long, at a service that is slow or fails now and then.

use crate::{
    fake::{Fake, Reaction},
    support::{SOON, STANDARD, next},
};
use outbox_sqs::SqsSubscriber;
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::time::timeout;

/// The shortest that there is: it is extended three times in that time.
const VISIBILITY: Duration = Duration::from_secs(1);

/// A queue with one message, which reacts to a change of its visibility, in seconds.
async fn holding_one(change: impl Fn(&Value) -> Reaction + Send + Sync + 'static) -> Fake {
    let receives = AtomicUsize::new(0);
    Fake::start(move |action, request| match action {
        "ReceiveMessage" if receives.fetch_add(1, Ordering::Relaxed) == 0 => {
            let message = json!({ "MessageId": "1", "ReceiptHandle": "r1", "Body": "no event" });
            Reaction::json(&json!({ "Messages": [message] }))
        }
        "ReceiveMessage" => Reaction::json(&json!({})).after(VISIBILITY),
        "ChangeMessageVisibilityBatch" => change(&request["Entries"][0]["VisibilityTimeout"]),
        _ => done(),
    })
    .await
}

/// Says that the one entry of a request was carried out.
fn done() -> Reaction {
    Reaction::json(&json!({ "Successful": [{ "Id": "0" }], "Failed": [] }))
}

fn subscriber(fake: &Fake) -> SqsSubscriber {
    SqsSubscriber::new(fake.url("sqs"), STANDARD)
        .expect("a URL")
        .visibility_timeout(VISIBILITY)
        .wait_time(Duration::from_secs(1))
}

/// Waits for the next change of visibility, and gives it in seconds.
async fn change(fake: &mut Fake) -> i64 {
    let change = async {
        loop {
            let (action, request) = fake.came.recv().await.expect("it serves");
            if action == "ChangeMessageVisibilityBatch" {
                let seconds = &request["Entries"][0]["VisibilityTimeout"];
                return seconds.as_i64().expect("a number");
            }
        }
    };
    timeout(SOON, change).await.expect("it comes")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_refuses_one_extension_for_now_is_asked_for_the_next() {
    let refused = AtomicUsize::new(0);
    let mut fake = holding_one(move |_| match refused.fetch_add(1, Ordering::Relaxed) {
        0 => {
            let entry = json!({ "Id": "0", "Code": "InternalError", "SenderFault": false });
            Reaction::json(&json!({ "Successful": [], "Failed": [entry] }))
        }
        _ => done(),
    })
    .await;
    let mut subscriber = subscriber(&fake);
    let delivery = next(&mut subscriber).await;
    for extension in 1..=3 {
        assert_eq!(change(&mut fake).await, 1, "extension {extension}");
    }
    delivery.ack().await.expect("acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_returned_though_extensions_take_longer_than_the_time_between_them() {
    // Slower than the tick: one extension would always be under way.
    let mut fake = holding_one(|seconds| match seconds.as_i64() {
        Some(0) => done(),
        _ => done().after(VISIBILITY / 2),
    })
    .await;
    let mut subscriber = subscriber(&fake);
    let delivery = next(&mut subscriber).await;
    assert_eq!(change(&mut fake).await, 1, "an extension is under way");
    timeout(SOON, delivery.nack(true)).await.expect("in time").expect("returned");
    while change(&mut fake).await != 0 {}
    // What is returned is extended no more.
    let after = timeout(VISIBILITY, change(&mut fake)).await;
    assert!(after.is_err(), "{after:?}");
}
