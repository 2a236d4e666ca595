//! The subscriber: counted deliveries, prefetch, and errors when the server removes a queue.

use crate::support::{
    SOON, client, full, message_with, name, next, numbered, publisher, queue, subscribed,
    subscriber, url,
};
use lapin::BasicProperties;
use outbox_amqp::{Death, Queue, Topology};
use outbox_core::transport::{Publisher, Subscriber};
use std::time::Duration;
use tokio::time::timeout;

/// How long a test waits for a delivery that must not come.
const QUIET: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_quorum_queue_counts_deliveries_and_gives_up_at_its_limit() {
    let (name, dead) = (name("limit"), name("dead"));
    let queues = Topology::new()
        .queue(queue(&name).delivery_limit(2).dead_letter_to(&dead))
        .queue(queue(&dead));
    publisher().queue(&name).declare(queues.clone()).publish(&full()).await.expect("confirmed");
    let mut subscription = subscriber(&name).declare(queues);
    for attempt in 1..=3 {
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.attempt, Some(attempt));
        delivery.nack(true).await.expect("accepted");
    }
    let delivery = next(&mut subscriber(&dead)).await;
    let deaths = Death::all_of(delivery.message.as_ref().expect("readable"));
    assert_eq!(deaths.len(), 1, "{deaths:?}");
    assert_eq!(
        (deaths[0].queue.as_str(), deaths[0].reason.as_str()),
        (name.as_str(), "delivery_limit")
    );
    delivery.ack().await.expect("accepted");
}

#[tokio::test]
async fn every_reason_for_a_dead_letter_is_reported() {
    let (rejecting, expiring, overflowing) =
        (name("rejecting"), name("expiring"), name("overflowing"));
    let dead = name("dead");
    let queues = Topology::new()
        .queue(queue(&rejecting).dead_letter_to(&dead))
        .queue(queue(&expiring).dead_letter_to(&dead).ttl(Duration::from_millis(20)))
        .queue(queue(&overflowing).dead_letter_to(&dead).max_length(1).drop_head())
        .queue(queue(&dead));
    let mut letters = subscriber(&dead).declare(queues.clone());
    let route = |message: &outbox_core::event::Message| message.key.clone().unwrap_or_default();
    let publisher = publisher().routing_key(route).declare(queues);
    let send = async |queue: &str| {
        let sent = message_with(|m| m.key = Some(queue.to_owned()));
        publisher.publish(&sent).await.expect("confirmed");
        sent.id
    };
    let mut expected = Vec::new();
    let first = send(&overflowing).await;
    send(&overflowing).await;
    expected.push((first, overflowing.as_str(), "maxlen"));
    expected.push((send(&expiring).await, expiring.as_str(), "expired"));
    expected.push((send(&rejecting).await, rejecting.as_str(), "rejected"));
    next(&mut subscriber(&rejecting)).await.reject("never").await.expect("accepted");

    for _ in 0..expected.len() {
        let delivery = next(&mut letters).await;
        let message = delivery.message.as_ref().expect("readable");
        let deaths = Death::all_of(message);
        let (_, queue, reason) =
            *expected.iter().find(|(id, ..)| *id == message.id).expect("a letter that is awaited");
        assert_eq!(
            (deaths[0].queue.as_str(), deaths[0].reason.as_str(), deaths[0].count),
            (queue, reason, 1)
        );
        assert_eq!(deaths[0].routing_keys, [queue]);
        assert!(deaths[0].at.is_some_and(|seconds| seconds > 1_700_000_000), "{deaths:?}");
        delivery.ack().await.expect("accepted");
    }
}

#[tokio::test]
async fn no_more_is_sent_ahead_than_was_asked_for() {
    let name = name("prefetch");
    let queues = Topology::new().queue(queue(&name));
    let publisher = publisher().queue(&name).declare(queues);
    for n in 1..=3 {
        publisher.publish(&numbered(n, "k")).await.expect("confirmed");
    }
    let mut subscriber = subscriber(&name).prefetch(2);
    let held = (next(&mut subscriber).await, next(&mut subscriber).await);
    assert!(timeout(QUIET, subscriber.next()).await.is_err(), "two are held");
    held.0.ack().await.expect("accepted");
    let third = next(&mut subscriber).await;
    assert_eq!(third.message.as_ref().map(|m| m.sequence.map(|n| n.0)), Ok(Some(3)));
}

#[tokio::test]
async fn a_stopped_subscriber_gives_no_more_and_accepts_late_acks() {
    let name = name("stop");
    let publisher = publisher().queue(&name).declare(Topology::new().queue(queue(&name)));
    for n in 1..=5 {
        publisher.publish(&numbered(n, "k")).await.expect("confirmed");
    }
    let mut first = subscriber(&name);
    let held = next(&mut first).await;
    first.stop();
    assert!(matches!(first.next().await, Ok(None)));
    // The prefetched messages are requeued at once, though an ack is still to come.
    let mut second = subscriber(&name);
    let mut rest = Vec::new();
    for _ in 0..4 {
        let delivery = next(&mut second).await;
        rest.push(
            delivery.message.as_ref().map(|m| m.sequence.map_or(0, |n| n.0)).expect("readable"),
        );
        delivery.ack().await.expect("accepted");
    }
    rest.sort_unstable();
    assert_eq!(rest, [2, 3, 4, 5]);
    drop(first);
    held.ack().await.expect("a late ack is accepted");
    drop(second);
    let client = client(&url()).await;
    tests::wait_until(SOON, "nothing is left", async || {
        tests::equals(client.waiting(&name).await, 0)
    })
    .await;
}

#[tokio::test]
async fn a_deleted_queue_is_reported_and_received_from_again_when_it_is_back() {
    let name = name("cancelled");
    let queues = Topology::new().queue(queue(&name));
    let publisher = publisher().queue(&name).declare(queues.clone());
    publisher.publish(&numbered(1, "k")).await.expect("confirmed");
    let (mut plain, mut declaring) =
        (subscriber(&name).prefetch(1), subscriber(&name).prefetch(1).declare(queues));
    next(&mut declaring).await.ack().await.expect("accepted");
    subscribed(&mut plain, &name, 2).await;

    client(&url()).await.delete_queue(&name).await;
    for lost in [plain.next().await, declaring.next().await] {
        let error = lost.expect_err("the loss is reported");
        assert!(
            outbox_core::failure::full_text(&error).contains("cancelled the consumer"),
            "{error:?}"
        );
    }
    let error = plain.next().await.expect_err("it is not there");
    assert!(
        outbox_core::failure::full_text(&error).contains("404 NOT_FOUND - no queue"),
        "{error:?}"
    );
    subscribed(&mut declaring, &name, 1).await;
    drop(declaring);
    publisher.publish(&numbered(2, "k")).await.expect("the queue is back");
    let again = async {
        loop {
            match plain.next().await {
                Ok(delivery) => return delivery.expect("the subscription is open"),
                // Its connection may have been made for the queue that is gone.
                Err(lost) => tracing::info!(%lost, "it receives again"),
            }
        }
    };
    let delivery = timeout(SOON, again).await.expect("what is published to the new queue comes");
    assert_eq!(delivery.message.as_ref().map(|m| m.sequence.map(|n| n.0)), Ok(Some(2)));
}

#[tokio::test]
async fn what_cannot_be_read_is_delivered_with_the_reason_and_can_be_rejected() {
    let (name, client) = (name("strange"), client(&url()).await);
    let queues = Topology::new().queue(Queue::classic(&name).expires(Duration::from_mins(2)));
    let mut subscriber = subscriber(&name).declare(queues).max_payload(1_000);
    subscribed(&mut subscriber, &name, 1).await;
    let json = BasicProperties::default().with_content_type("application/cloudevents+json".into());
    let table = [
        (BasicProperties::default(), b"{}".to_vec(), "no attributes of CloudEvents"),
        (json.clone(), b"{not json".to_vec(), "no CloudEvent in JSON"),
        (json, b"{\"specversion\":\"1.0\"}".to_vec(), "`id` is missing"),
        (BasicProperties::default(), vec![b'x'; 1_001], "1001 bytes, of at most 1000"),
    ];
    for (properties, body, reason) in table {
        let publish = client.channel.basic_publish(
            "".into(),
            name.as_str().into(),
            Default::default(),
            &body,
            properties,
        );
        publish.await.expect("sent").await.expect("taken");
        let delivery = next(&mut subscriber).await;
        let problem = delivery.message.as_ref().expect_err("it cannot be read");
        assert!(problem.contains(reason), "{problem}");
        delivery.reject(reason).await.expect("accepted");
    }
    assert!(timeout(QUIET, subscriber.next()).await.is_err(), "none comes again");
}
