//! A broker between the two halves loses no confirmed message, also where subscribers come and go and the broker restarts.

use super::{Pair, TransportFixture, all_arrive, go_through, in_time, next, numbered, ready, take};
use crate::{
    event::{Message, MessageId},
    failure::FailureClass,
    testing::Recorder,
    transport::{Delivery, Publisher, Subscriber, publish_all},
};
use async_trait::async_trait;
use futures_util::future::join_all;
use std::{collections::BTreeSet, time::Duration};

/// A server between the two halves that the suite may stop and start again, keeping its data.
#[async_trait]
pub trait Restart: Send + 'static {
    /// Stops it, and returns when it has ended.
    async fn stop(&mut self);

    /// Starts it, and returns when it accepts connections.
    async fn start(&mut self);
}

/// Makes a broker of its own for the suite.
#[async_trait]
pub trait RestartFixture: Send + Sync + 'static {
    /// Makes a connected pair on an empty destination of a server of its own.
    async fn private() -> (Pair, Box<dyn Restart>);

    /// Whether an ack decision during a lost connection is kept and passed on when the server is up again, as long as no
    /// other subscriber has the message. Where this is false, it is an error, and the message is delivered again.
    fn acks_outlive_connections() -> bool {
        false
    }
}

/// Pause between two tries of a publisher whose server is down, as a relay's breaker makes it.
const PAUSE: Duration = Duration::from_millis(50);
/// For a server to stop and start: RabbitMQ needs most of a minute on a machine that does much else.
const RESTARTED_WITHIN: Duration = Duration::from_secs(150);

fn messages(range: std::ops::RangeInclusive<i64>) -> Vec<Message> {
    range.map(|n| numbered(n, &format!("k{}", n % 17))).collect()
}

/// Publishes until the message is confirmed, as a relay does; no failure may speak of the message.
async fn insist(publisher: &dyn Publisher, message: &Message) {
    while let Err(error) = publisher.publish(message).await {
        assert_ne!(error.class(), FailureClass::Permanent, "{}", error.full_text());
        tokio::time::sleep(PAUSE).await;
    }
}

/// Receives until each message was taken at least once; reconnects when the connection is lost.
async fn drain(subscriber: &mut dyn Subscriber, recorder: &Recorder, all: &[Message]) {
    while all.iter().any(|message| recorder.times(message.id) == 0) {
        if let Ok(Some(delivery)) = subscriber.next().await {
            recorder.take(delivery).await;
        }
    }
}

fn id(delivery: &Delivery) -> MessageId {
    delivery.message.as_ref().map(|message| message.id).expect("the message can be read")
}

/// All messages that a subscriber had not acknowledged when it was dropped are delivered to the next one.
pub async fn unacknowledged_messages_are_delivered_to_the_next_subscriber<T: TransportFixture>() {
    let mut pair = ready::<T>().await;
    let Some(again) = pair.again.take() else { return };
    let sent = messages(1..=12);
    let published = in_time("a batch", publish_all(&*pair.publisher, &sent)).await;
    assert!(published.iter().all(Result::is_ok), "a broker takes them: {published:?}");
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        seen.insert(take(pair.subscriber.as_mut()).await.id);
    }
    let unacked = [next(pair.subscriber.as_mut()).await, next(pair.subscriber.as_mut()).await];
    drop(pair.subscriber);
    drop(unacked);
    let mut other = again();
    while seen.len() < sent.len() {
        let message = take(other.as_mut()).await;
        assert!(seen.insert(message.id), "an acknowledged message is not delivered again");
    }
}

/// Subscribers that share a destination, come and go while messages are published: each message is taken.
pub async fn subscribers_that_come_and_go_lose_nothing<T: TransportFixture>() {
    let mut pair = ready::<T>().await;
    let Some(again) = pair.again.take() else { return };
    let sent = messages(1..=300);
    let recorder = Recorder::new();
    let publish = async {
        for batch in sent.chunks(30) {
            join_all(batch.iter().map(|message| insist(pair.publisher.as_ref(), message))).await;
        }
    };
    let come_and_go = async {
        for _ in 0..6 {
            let mut passing = again();
            for _ in 0..10 {
                recorder.take(next(passing.as_mut()).await).await;
            }
            // Keeps a delivery unacknowledged, and is dropped without closing.
            let _unacked = next(passing.as_mut()).await;
        }
        drain(pair.subscriber.as_mut(), &recorder, &sent).await;
    };
    all_arrive(&recorder, sent.len(), async { tokio::join!(publish, come_and_go) }).await;
    assert_eq!(recorder.distinct(), sent.len());
}

/// A server that is stopped while messages are published and received loses none that it had confirmed, and both halves find
/// it again by themselves.
pub async fn a_server_that_is_stopped_in_the_middle_loses_nothing<T: RestartFixture>() {
    let (mut pair, mut server) = T::private().await;
    go_through(&mut pair).await;
    let (before, during) = (messages(1..=200), messages(201..=400));
    let recorder = Recorder::new();
    in_time("the first half", async {
        join_all(before.iter().map(|message| insist(pair.publisher.as_ref(), message))).await;
        recorder.take(next(pair.subscriber.as_mut()).await).await;
    })
    .await;
    let publish = join_all(during.iter().map(|message| insist(pair.publisher.as_ref(), message)));
    let restart = async {
        server.stop().await;
        let refused =
            pair.publisher.publish(&numbered(1, "down")).await.expect_err("the server is down");
        assert_eq!(refused.class(), FailureClass::Unavailable, "{}", refused.full_text());
        server.start().await;
    };
    let all: Vec<Message> = before.iter().chain(&during).cloned().collect();
    let receive = drain(pair.subscriber.as_mut(), &recorder, &all);
    let everything = async { tokio::join!(publish, restart, receive) };
    assert!(
        tokio::time::timeout(RESTARTED_WITHIN, everything).await.is_ok(),
        "not all came: {}",
        recorder.distinct()
    );
}

/// Messages that were delivered and not acknowledged when the connection was lost are delivered again, and the late ack
/// decision is an error.
pub async fn unacknowledged_messages_are_redelivered_after_a_lost_connection<T: RestartFixture>() {
    let (mut pair, mut server) = T::private().await;
    go_through(&mut pair).await;
    let sent = messages(1..=10);
    let published = in_time("a batch", publish_all(&*pair.publisher, &sent)).await;
    assert!(published.iter().all(Result::is_ok), "{published:?}");
    let acked = take(pair.subscriber.as_mut()).await.id;
    let unacked = [next(pair.subscriber.as_mut()).await, next(pair.subscriber.as_mut()).await];
    let lost: BTreeSet<MessageId> = unacked.iter().map(id).collect();
    server.stop().await;
    let reported = in_time("the loss", pair.subscriber.next()).await;
    assert!(!matches!(reported, Ok(None)), "a lost connection is no end");
    // A delivery that had been fetched before may still have arrived; it is delivered again.
    drop(reported);
    let mut kept = BTreeSet::from([acked]);
    for delivery in unacked {
        let id = id(&delivery);
        if delivery.ack().await.is_ok() {
            assert!(T::acks_outlive_connections(), "an ack decision that is lost is an error");
            kept.insert(id);
        }
    }
    server.start().await;
    let recorder = Recorder::new();
    let rest: Vec<Message> =
        sent.into_iter().filter(|message| !kept.contains(&message.id)).collect();
    all_arrive(&recorder, rest.len(), drain(pair.subscriber.as_mut(), &recorder, &rest)).await;
    if T::acks_outlive_connections() {
        return;
    }
    assert!(
        lost.iter().all(|id| recorder.times(*id) == 1),
        "unacknowledged messages were delivered again"
    );
    assert_eq!(recorder.times(acked), 0, "the acknowledged one was not");
}
