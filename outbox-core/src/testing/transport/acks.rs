//! Ack decisions reach the sender, and mean the same with every transport.

use super::{
    TransportFixture, confirmed_by_a_broker, full, in_time, next, numbered, publish_batch,
    publish_while, ready, seeing, take,
};
use crate::{
    event::Message,
    failure::FailureClass,
    transport::{Delivery, PublishError},
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// How long the suite waits for a delivery that should not come.
const QUIET: Duration = Duration::from_millis(300);

async fn nothing_comes(pair: &mut super::Pair) {
    let next = tokio::time::timeout(QUIET, pair.subscriber.next()).await;
    assert!(next.is_err(), "nothing comes again, but: {next:?}");
}

fn class(result: Result<crate::transport::Receipt, PublishError>) -> Option<FailureClass> {
    result.err().map(|error| error.class())
}

/// An acknowledged message is confirmed, not before the acknowledgement where that is promised, and is not delivered again.
pub async fn an_acknowledged_message_is_confirmed_and_not_redelivered<T: TransportFixture>() {
    let mut pair = ready::<T>().await;
    let sent = full();
    let publisher = Arc::clone(&pair.publisher);
    let mut publish = Box::pin(publisher.publish(&sent));
    if T::promises().end_to_end {
        let delivery = tokio::select! {
            biased;
            early = &mut publish => panic!("confirmed before the acknowledgement: {early:?}"),
            delivery = next(pair.subscriber.as_mut()) => delivery,
        };
        let early = tokio::time::timeout(QUIET, &mut publish).await;
        assert!(early.is_err(), "confirmed before the acknowledgement: {early:?}");
        let (result, acked) = tokio::join!(in_time("a publish", publish), delivery.ack());
        assert!(result.is_ok() && acked.is_ok(), "{result:?} {acked:?}");
    } else {
        let confirmed = async { in_time("a publish", publish).await.expect("it is confirmed") };
        let (_, received) = tokio::join!(confirmed, take(pair.subscriber.as_mut()));
        assert_eq!(received.id, sent.id);
    }
    nothing_comes(&mut pair).await;
}

/// A nacked message fails its publish as transient, or is delivered again and counted.
pub async fn a_nacked_message_fails_or_is_redelivered<T: TransportFixture>() {
    nacked::<T>(|delivery: Delivery| async {
        delivery.nack(true).await.expect("the ack decision is taken")
    })
    .await;
}

/// A delivery that is dropped counts as nacked.
pub async fn a_dropped_delivery_counts_as_nacked<T: TransportFixture>() {
    nacked::<T>(|delivery: Delivery| async { drop(delivery) }).await;
}

async fn nacked<T: TransportFixture>(decide: impl AsyncFnOnce(Delivery)) {
    let (mut pair, sent, promises) = (ready::<T>().await, full(), T::promises());
    let mut first_attempt = None;
    let result = publish_while::<T, _>(&mut pair, &sent, |delivery| {
        first_attempt = delivery.attempt;
        decide(delivery)
    })
    .await;
    if promises.end_to_end {
        assert_eq!(class(result), Some(FailureClass::Transient));
    } else {
        assert_eq!(class(result), None, "the broker has confirmed");
    }
    if promises.redelivers {
        let again = next(pair.subscriber.as_mut()).await;
        assert_eq!(again.message.as_ref().map(|m| m.id), Ok(sent.id));
        if promises.counts_attempts {
            assert_eq!((first_attempt, again.attempt), (Some(1), Some(2)));
        }
        again.ack().await.expect("the ack decision is taken");
    }
    if !promises.counts_attempts {
        assert_eq!(first_attempt, None, "a transport that does not count gives no attempt");
    }
}

/// A rejected message is not delivered again, and its publish fails as permanent where that is promised.
pub async fn a_rejected_message_is_not_delivered_again<T: TransportFixture>() {
    let mut pair = ready::<T>().await;
    let result = publish_while::<T, _>(&mut pair, &full(), |delivery| async {
        delivery.reject("the order does not exist").await.expect("the ack decision is taken");
    })
    .await;
    if T::promises().end_to_end {
        let error = result.expect_err("a rejected message is not confirmed");
        assert_eq!(error.class(), FailureClass::Permanent);
        assert!(
            error.full_text().contains("the order does not exist"),
            "the reason travels: {}",
            error.full_text()
        );
    } else {
        assert_eq!(class(result), None, "the broker has confirmed");
    }
    nothing_comes(&mut pair).await;
}

/// A batch has one result for each message, in the order of the messages, and one failure affects no other.
pub async fn a_batch_has_one_result_each_in_its_order<T: TransportFixture>() {
    const SIZE: i64 = 30;
    let mut pair = ready::<T>().await;
    let batch: Vec<Message> = (0..SIZE).map(|n| numbered(n + 1, &format!("k{n}"))).collect();
    let place: HashMap<_, _> =
        batch.iter().enumerate().map(|(place, message)| (message.id, place)).collect();
    let publisher = Arc::clone(&pair.publisher);
    let publish = publish_batch::<T>(publisher.as_ref(), &batch);
    let decide = async {
        for _ in &batch {
            let delivery = next(pair.subscriber.as_mut()).await;
            let id = delivery.message.as_ref().map(|m| m.id).expect("the message can be read");
            match place.get(&id).expect("only what was sent comes") % 3 {
                0 => delivery.ack().await,
                1 if T::promises().end_to_end => delivery.nack(true).await,
                1 => delivery.ack().await,
                _ => delivery.reject("third").await,
            }
            .expect("the ack decision is taken");
        }
    };
    let (results, ()) = tokio::join!(publish, decide);
    assert_eq!(results.len(), batch.len());
    for (place, result) in results.into_iter().enumerate() {
        let expected = match place % 3 {
            1 if T::promises().end_to_end => Some(FailureClass::Transient),
            2 if T::promises().end_to_end => Some(FailureClass::Permanent),
            _ => None,
        };
        assert_eq!(class(result), expected, "message {place}");
    }
}

/// A wait for a delivery that is given up loses nothing.
pub async fn a_wait_for_a_delivery_that_is_given_up_loses_nothing<T: TransportFixture>() {
    const MESSAGES: i64 = 20;
    let mut pair = ready::<T>().await;
    let publisher = Arc::clone(&pair.publisher);
    let sent: Vec<Message> = (1..=MESSAGES).map(|n| numbered(n, &format!("k{n}"))).collect();
    let publish = publish_batch::<T>(publisher.as_ref(), &sent);
    let came = AtomicUsize::new(0);
    let saw = || format!("{} of {} came", came.load(Ordering::Relaxed), sent.len());
    let receive = async {
        let mut received = Vec::new();
        while received.len() < sent.len() {
            let mut wait = Box::pin(pair.subscriber.next());
            // Given up after one poll, and after a little while, in turn.
            let wait_for = Duration::from_millis(if received.len() % 2 == 0 { 0 } else { 5 });
            if let Ok(delivery) = tokio::time::timeout(wait_for, &mut wait).await {
                let delivery =
                    delivery.expect("the subscription holds").expect("the subscription is open");
                received.push(
                    delivery.message.as_ref().map(|m| m.id).expect("the message can be read"),
                );
                came.store(received.len(), Ordering::Relaxed);
                delivery.ack().await.expect("the ack decision is taken");
            } else {
                drop(wait);
                tokio::task::yield_now().await;
            }
        }
        received
    };
    let (results, mut received) = tokio::join!(publish, seeing("all deliveries", saw, receive));
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    received.sort_unstable();
    let mut expected: Vec<_> = sent.iter().map(|m| m.id).collect();
    expected.sort_unstable();
    assert_eq!(received, expected);
}

/// A publish that is given up halfway disturbs no other.
pub async fn a_publish_that_is_given_up_disturbs_no_other<T: TransportFixture>() {
    let mut pair = ready::<T>().await;
    let given_up = full();
    let publisher = Arc::clone(&pair.publisher);
    let cut = tokio::time::timeout(Duration::from_millis(20), publisher.publish(&given_up)).await;
    assert!(cut.is_err() || !T::promises().end_to_end, "nothing was acknowledged: {cut:?}");
    let sent = full();
    let publish = async {
        let result = in_time("a publish", publisher.publish(&sent)).await;
        confirmed_by_a_broker::<T>(&result);
        result
    };
    let receive = async {
        loop {
            let delivery = next(pair.subscriber.as_mut()).await;
            let id = delivery.message.as_ref().map(|m| m.id).expect("the message can be read");
            // The publisher of the first message may have stopped waiting.
            let acked = delivery.ack().await;
            if id == sent.id {
                return acked;
            }
            assert_eq!(id, given_up.id);
        }
    };
    let (result, acked) = tokio::join!(publish, receive);
    assert!(result.is_ok() && acked.is_ok(), "{result:?} {acked:?}");
}
