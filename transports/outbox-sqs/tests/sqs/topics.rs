//! Topics of SNS: a copy to each queue, with raw delivery.

use crate::{
    fake::{Fake, Reaction},
    support::{
        FIFO, SOON, client, failure, full, message_with, next, number, numbered, publish,
        publisher_at, start, subscriber_at, topic_publisher,
    },
};
use outbox_core::{
    failure::FailureClass::{Permanent, Unavailable},
    testing::transport::{
        Pair, Promises, TransportFixture,
        a_batch_has_one_result_each_in_its_order as batch_results,
        every_attribute_arrives_unchanged as attributes_arrive,
        every_legal_header_arrives_unchanged as headers_arrive,
        messages_of_one_key_arrive_in_their_order as keys_in_order,
        payloads_arrive_byte_for_byte as payloads_arrive,
        the_publisher_says_what_it_takes as limits_hold,
    },
    transport::{PublishError, Publisher, publish_all},
};
use outbox_sqs::{SnsPublisher, SnsTopic, SqsQueue};
use serde_json::json;
use std::sync::Mutex;
use tests::servers::aws;

/// As much as a topic takes unless its settings say otherwise; bytes go as base64.
const LARGEST: usize = 190_000;

/// A pair over a topic, at ministack.
struct Ministack;

/// The same at moto.
struct Moto;

fn pair(server: tests::servers::Server) -> Pair {
    let url = server.url();
    let publisher = topic_publisher(&server, "events.fifo", FIFO).build().expect("configured");
    Pair::new(publisher, subscriber_at(&url, FIFO)).keeping(server)
}

#[async_trait::async_trait]
impl TransportFixture for Ministack {
    fn promises() -> Promises {
        Promises::broker().counts_attempts(true).max_payload(LARGEST)
    }

    async fn pair() -> Pair {
        pair(aws::start().await)
    }
}

#[async_trait::async_trait]
impl TransportFixture for Moto {
    fn promises() -> Promises {
        Ministack::promises()
    }

    async fn pair() -> Pair {
        pair(aws::start_moto().await)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_to_a_topic_arrives_unchanged() {
    attributes_arrive::<Ministack>().await;
    headers_arrive::<Ministack>().await;
    payloads_arrive::<Ministack>().await;
    limits_hold::<Ministack>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_to_a_topic_of_moto_arrives_unchanged() {
    attributes_arrive::<Moto>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifo_topic_keeps_the_order_of_each_key_and_a_batch_has_one_outcome_each() {
    keys_in_order::<Ministack>().await;
    batch_results::<Ministack>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_queue_of_a_topic_gets_its_own_copy() {
    let server = start().await;
    let url = server.url();
    let topic = SnsTopic::new("events.fifo").deliver_to("billing.fifo").deliver_to("audit.fifo");
    let publisher = SnsPublisher::new(&url).expect("a URL").topic("events.fifo").declare([topic]);
    publish(&publisher, "k", 1..=3).await;
    for queue in ["billing.fifo", "audit.fifo"] {
        let mut subscriber = subscriber_at(&url, queue);
        for n in 1..=3 {
            let delivery = next(&mut subscriber).await;
            assert_eq!(number(&delivery), n, "{queue}");
            delivery.ack().await.expect("acknowledged");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_within_the_window_is_confirmed_and_delivered_once() {
    let server = start().await;
    let publisher = topic_publisher(&server, "events.fifo", FIFO);
    let (first, second) = (numbered(1, "k"), numbered(2, "k"));
    for message in [&first, &first, &second] {
        publisher.publish(message).await.expect("confirmed");
    }
    let mut subscriber = subscriber_at(&server.url(), FIFO);
    for n in [1, 2] {
        let delivery = next(&mut subscriber).await;
        assert_eq!(number(&delivery), n);
        delivery.ack().await.expect("acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_missing_counts_as_down_and_is_named() {
    let server = start().await;
    let publisher = SnsPublisher::new(server.url()).expect("a URL").topic("nowhere");
    let error = failure(&publisher).await;
    assert_eq!((error.class(), error.has_responded()), (Unavailable, true), "{error}");
    for part in ["topic `nowhere`", "create the topic"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_a_topic_does_not_take_takes_no_neighbour_with_it() {
    let server = start().await;
    // The publisher believes that the topic takes more than it does.
    let publisher = topic_publisher(&server, "events", "orders").max_message(1_048_576);
    let large = message_with(|m| m.payload = vec![b'x'; 300_000].into());
    let mut batch: Vec<_> = (1..=8).map(|n| numbered(n, &format!("k{n}"))).collect();
    batch.insert(3, large);
    let outcomes = publish_all(&publisher, &batch).await;
    let classes: Vec<_> =
        outcomes.iter().map(|outcome| outcome.as_ref().err().map(PublishError::class)).collect();
    let expected: Vec<_> = (0..9).map(|place| (place == 3).then_some(Permanent)).collect();
    assert_eq!(classes, expected, "{outcomes:?}");
    let arrived = client(&server).depth("orders").await.0;
    assert_eq!(arrived, 8, "each of the others once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_another_policy_stays_as_it_is_and_the_error_says_what_it_lacks() {
    let server = start().await;
    publisher_at(&server.url(), "guarded").publish(&full()).await.expect("confirmed");
    let admin = client(&server);
    let name = aws_sdk_sqs::types::QueueAttributeName::Policy;
    let policy = r#"{"Version":"2012-10-17","Statement":[]}"#;
    let url = admin.url("guarded").await;
    let set = admin.sqs.set_queue_attributes().queue_url(&url).attributes(name, policy).send();
    set.await.expect("set");
    let error = failure(&topic_publisher(&server, "events", "guarded")).await;
    assert_eq!(error.class(), Unavailable);
    for part in ["`guarded`", "its policy does not name the topic", "allow sqs:SendMessage"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_for_a_topic_whose_name_begins_alike_lets_no_other_topic_send() {
    let server = start().await;
    let longer = topic_publisher(&server, "events-v2", "guarded");
    longer.publish(&full()).await.expect("confirmed, and its policy is set");
    let error = failure(&topic_publisher(&server, "events", "guarded")).await;
    assert_eq!(error.class(), Unavailable, "SNS would discard what is confirmed");
    for part in ["`guarded`", "its policy does not name the topic", ":events as aws:SourceArn"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    longer.publish(&numbered(2, "k")).await.expect("the policy is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_may_have_the_name_of_a_topic_and_receives_from_all_that_deliver_to_it() {
    let server = start().await;
    let topics = ["orders", "paid"].map(|topic| SnsTopic::new(topic).deliver_to("orders"));
    let publisher = SnsPublisher::new(server.url())
        .expect("a URL")
        .declare(topics)
        .topic_of(|message| message.key.clone().unwrap_or_default());
    publish(&publisher, "orders", [1]).await;
    publish(&publisher, "paid", [2]).await;
    let mut subscriber = subscriber_at(&server.url(), "orders");
    let mut came = Vec::new();
    for _ in 1..=2 {
        let delivery = next(&mut subscriber).await;
        came.push(number(&delivery));
        delivery.ack().await.expect("acknowledged");
    }
    came.sort_unstable();
    assert_eq!(came, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_whose_policy_another_program_sets_at_the_same_moment_is_not_published_to() {
    const QUEUE: &str = "arn:aws:sqs:us-east-1:000000000000:billing";
    const TOPIC: &str = "arn:aws:sns:us-east-1:000000000000:events";
    // It takes each policy, and has the other program's afterwards.
    let policy = Mutex::new(String::new());
    let mut fake = Fake::start(move |action, request| {
        let mut policy = policy.lock().expect("no panic under the lock");
        match action {
            "CreateTopic" => Reaction::xml(action, "TopicArn", TOPIC),
            "Subscribe" => Reaction::xml(action, "SubscriptionArn", TOPIC),
            "SetQueueAttributes" => {
                let ours = request["Attributes"]["Policy"].as_str().unwrap_or_default();
                assert!(ours.contains(TOPIC), "{request}");
                *policy = ours.replace(TOPIC, &format!("{TOPIC}-of-others"));
                Reaction::json(&json!({}))
            }
            "GetQueueAttributes" if request["AttributeNames"][0] == "QueueArn" => {
                Reaction::json(&json!({ "Attributes": { "QueueArn": QUEUE } }))
            }
            "GetQueueAttributes" if policy.is_empty() => Reaction::json(&json!({})),
            _ => Reaction::json(&json!({ "Attributes": { "Policy": policy.as_str() } })),
        }
    })
    .await;
    let topic = SnsTopic::new("events").deliver_to("billing");
    let publisher = SnsPublisher::new(fake.url("sns")).expect("a URL").topic("events");
    let publisher = publisher.declare([topic]);
    let first = failure(&publisher).await;
    assert!(first.to_string().contains("another program has set its own"), "{first}");
    let second = failure(&publisher).await;
    for error in [first, second] {
        assert_eq!(error.class(), Unavailable, "{error}");
        assert!(error.to_string().contains("queue `billing`: its policy does not name"), "{error}");
    }
    while let Ok((action, _)) = fake.came.try_recv() {
        assert_ne!(action, "PublishBatch", "SNS would discard it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_declared_with_its_own_settings_is_subscribed() {
    let server = start().await;
    let queue = SqsQueue::new(FIFO).dead_letters("dead.fifo", 3);
    let publisher = topic_publisher(&server, "events.fifo", FIFO).declare_queues([queue]);
    let published = tokio::time::timeout(SOON, publisher.publish(&full())).await;
    published.expect("in time").expect("confirmed");
    assert_eq!(client(&server).depth(FIFO).await.0, 1);
}
