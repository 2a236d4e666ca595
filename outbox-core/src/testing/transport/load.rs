//! Many messages at once, in order, and an end that leaves no publish hanging.

use super::{TransportFixture, all_arrive, full, in_time, next, numbered, publish_batch, ready};
use crate::{event::Message, failure::FailureClass, testing::Recorder, transport::Publisher};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::sync::Arc;

/// Thousands of messages that are published at once all arrive, each once.
pub async fn thousands_of_messages_at_once_all_arrive_once<T: TransportFixture>() {
    const MESSAGES: i64 = 3_000;
    let mut pair = ready::<T>().await;
    let publisher = Arc::clone(&pair.publisher);
    let sent: Vec<Message> = (1..=MESSAGES).map(|n| numbered(n, &format!("k{}", n % 61))).collect();
    let recorder = Recorder::new();
    let publish = async {
        let publishes: FuturesUnordered<_> =
            sent.iter().map(|message| publisher.publish(message)).collect();
        publishes.collect::<Vec<_>>().await
    };
    let results = all_arrive(&recorder, sent.len(), async {
        let mut publish = Box::pin(publish);
        let drain = async {
            let end = recorder.drain(pair.subscriber.as_mut()).await;
            panic!("the subscription ended: {end:?}");
        };
        tokio::select! {
            results = &mut publish => results,
            never = drain => never,
        }
    })
    .await;
    let failed: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} failed, the first: {:?}", failed.len(), failed.first());
    // A broker may have confirmed before all was delivered.
    all_arrive(&recorder, sent.len(), async {
        while recorder.distinct() < sent.len() {
            let delivery = next(pair.subscriber.as_mut()).await;
            recorder.take(delivery).await;
        }
    })
    .await;
    assert_eq!((recorder.distinct(), recorder.repeated()), (sent.len(), Vec::new()));
    let payloads: std::collections::HashMap<_, _> =
        sent.iter().map(|m| (m.id, &m.payload)).collect();
    for message in recorder.messages() {
        assert_eq!(
            payloads.get(&message.id),
            Some(&&message.payload),
            "each arrives with its own payload"
        );
    }
}

/// Messages of one key that are published one after another arrive in that order, whatever other keys do.
pub async fn messages_of_one_key_arrive_in_their_order<T: TransportFixture>() {
    const KEYS: i64 = 8;
    const EACH: i64 = 40;
    if !T::promises().order_per_key {
        return;
    }
    let mut pair = ready::<T>().await;
    let publisher = Arc::clone(&pair.publisher);
    let recorder = Recorder::new();
    let all_keys: FuturesUnordered<_> = (0..KEYS)
        .map(|key| {
            let publisher = Arc::clone(&publisher);
            async move {
                for n in 1..=EACH {
                    publisher.publish(&numbered(n, &format!("k{key}"))).await.expect("confirmed");
                }
            }
        })
        .collect();
    let total = usize::try_from(KEYS * EACH).expect("a small number");
    let receive = async {
        while recorder.count() < total {
            let delivery = next(pair.subscriber.as_mut()).await;
            recorder.take(delivery).await;
        }
    };
    all_arrive(&recorder, total, async { tokio::join!(all_keys.collect::<Vec<()>>(), receive) })
        .await;
    assert_eq!((recorder.distinct(), recorder.keys_out_of_order()), (total, Vec::new()));
}

/// A subscriber that closes while publishes are under way leaves none of them hanging: each was confirmed by its own
/// acknowledgement or has failed, and none as permanent.
pub async fn a_subscriber_that_closes_leaves_no_publish_hanging<T: TransportFixture>() {
    const MESSAGES: i64 = 200;
    const ACKNOWLEDGED: usize = 20;
    let mut pair = ready::<T>().await;
    let publisher: Arc<dyn Publisher> = Arc::clone(&pair.publisher);
    let sent: Vec<Message> = (1..=MESSAGES).map(|n| numbered(n, &format!("k{n}"))).collect();
    let publish = publish_batch::<T>(publisher.as_ref(), &sent);
    let recorder = Recorder::new();
    let close = async {
        for _ in 0..ACKNOWLEDGED {
            let delivery = next(pair.subscriber.as_mut()).await;
            recorder.take(delivery).await;
        }
        drop(pair.subscriber);
    };
    let (results, ()) = tokio::join!(publish, close);
    if !T::promises().end_to_end {
        assert!(
            results.iter().all(Result::is_ok),
            "a broker takes messages without a subscriber: {results:?}"
        );
        return;
    }
    for (message, result) in sent.iter().zip(results) {
        match result {
            Ok(_) => {
                assert_eq!(recorder.times(message.id), 1, "only what was acknowledged is confirmed")
            }
            Err(error) => assert_ne!(error.class(), FailureClass::Permanent, "{error:?}"),
        }
    }
}

/// Nothing is confirmed by a subscriber that is closed.
pub async fn a_closed_subscriber_confirms_nothing<T: TransportFixture>() {
    if !T::promises().end_to_end {
        return;
    }
    let pair = ready::<T>().await;
    drop(pair.subscriber);
    let error = in_time("a publish without a subscriber", pair.publisher.publish(&full())).await;
    let error = error.expect_err("nobody has acknowledged");
    assert_ne!(
        error.class(),
        FailureClass::Permanent,
        "the message may go when someone subscribes again"
    );
}
