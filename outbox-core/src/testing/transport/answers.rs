//! The subscriber's answer is heard, and means the same everywhere.

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

/// How long the suite looks whether something comes that should not.
const QUIET: Duration = Duration::from_millis(300);

async fn nothing_comes(pair: &mut super::Pair) {
    let next = tokio::time::timeout(QUIET, pair.subscriber.next()).await;
    assert!(next.is_err(), "nothing comes again, but: {next:?}");
}

fn class(result: Result<crate::transport::Receipt, PublishError>) -> Option<FailureClass> {
    result.err().map(|error| error.class())
}

/// An acknowledged message is confirmed, not before the acknowledgement where that is promised, and does not come again.
pub async fn an_acknowledged_message_is_confirmed_and_does_not_come_again<T: TransportFixture>() {
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

/// A message that was not handled fails its publish as transient, or comes again and counts.
pub async fn a_message_that_was_not_handled_fails_or_comes_again<T: TransportFixture>() {
    not_handled::<T>(|delivery: Delivery| async {
        delivery.nack(true).await.expect("the answer is taken")
    })
    .await;
}

/// A delivery that is dropped counts as not handled.
pub async fn a_dropped_delivery_counts_as_not_handled<T: TransportFixture>() {
    not_handled::<T>(|delivery: Delivery| async { drop(delivery) }).await;
}

async fn not_handled<T: TransportFixture>(answer: impl AsyncFnOnce(Delivery)) {
    let (mut pair, sent, promises) = (ready::<T>().await, full(), T::promises());
    let mut first_attempt = None;
    let result = publish_while::<T, _>(&mut pair, &sent, |delivery| {
        first_attempt = delivery.attempt;
        answer(delivery)
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
        again.ack().await.expect("the answer is taken");
    }
    if !promises.counts_attempts {
        assert_eq!(first_attempt, None, "what is not counted is not said");
    }
}

/// A rejected message is refused for good: its publish fails as permanent, and it does not come again.
pub async fn a_rejected_message_is_refused_for_good<T: TransportFixture>() {
    let mut pair = ready::<T>().await;
    let result = publish_while::<T, _>(&mut pair, &full(), |delivery| async {
        delivery.reject("the order does not exist").await.expect("the answer is taken");
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

/// A batch has one verdict for each message, in the order of the messages, and one failure touches no other.
pub async fn a_batch_has_one_verdict_each_in_its_order<T: TransportFixture>() {
    const SIZE: i64 = 30;
    let mut pair = ready::<T>().await;
    let batch: Vec<Message> = (0..SIZE).map(|n| numbered(n + 1, &format!("k{n}"))).collect();
    let place: HashMap<_, _> =
        batch.iter().enumerate().map(|(place, message)| (message.id, place)).collect();
    let publisher = Arc::clone(&pair.publisher);
    let publish = publish_batch::<T>(publisher.as_ref(), &batch);
    let answer = async {
        for _ in &batch {
            let delivery = next(pair.subscriber.as_mut()).await;
            let id = delivery.message.as_ref().map(|m| m.id).expect("the message can be read");
            match place.get(&id).expect("only what was sent comes") % 3 {
                0 => delivery.ack().await,
                1 if T::promises().end_to_end => delivery.nack(true).await,
                1 => delivery.ack().await,
                _ => delivery.reject("third").await,
            }
            .expect("the answer is taken");
        }
    };
    let (results, ()) = tokio::join!(publish, answer);
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
            let patience = Duration::from_millis(if received.len() % 2 == 0 { 0 } else { 5 });
            if let Ok(delivery) = tokio::time::timeout(patience, &mut wait).await {
                let delivery =
                    delivery.expect("the subscription holds").expect("the subscription is open");
                received.push(
                    delivery.message.as_ref().map(|m| m.id).expect("the message can be read"),
                );
                came.store(received.len(), Ordering::Relaxed);
                delivery.ack().await.expect("the answer is taken");
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
    assert!(cut.is_err() || !T::promises().end_to_end, "nobody has answered: {cut:?}");
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
            // Nobody may be left to hear the answer to what was given up.
            let answered = delivery.ack().await;
            if id == sent.id {
                return answered;
            }
            assert_eq!(id, given_up.id);
        }
    };
    let (result, answered) = tokio::join!(publish, receive);
    assert!(result.is_ok() && answered.is_ok(), "{result:?} {answered:?}");
}
