//! The suite that every transport passes, ours and yours, against its real destination.
//!
//! A [`TransportFixture`] makes a connected pair and says in a table what the transport promises beyond the traits; the suite
//! asks for all of it and nothing more.
//!
//! ```
//! use outbox_core::{testing::transport::{Pair, Promises, TransportFixture}, transport::Memory, transport_suite};
//! struct InProcess;
//!
//! #[async_trait::async_trait]
//! impl TransportFixture for InProcess {
//!     fn promises() -> Promises {
//!         Promises::end_to_end()
//!     }
//!     async fn pair() -> Pair {
//!         let (publisher, subscriber) = Memory::channel();
//!         Pair::new(publisher, subscriber)
//!     }
//! }
//! transport_suite!(InProcess);
//! ```

mod acks;
mod broker;
mod content;
mod load;

pub use broker::{Restart, RestartFixture};

// The cases, for the macro below.
#[doc(hidden)]
pub use acks::{
    a_batch_has_one_result_each_in_its_order, a_dropped_delivery_counts_as_nacked,
    a_nacked_message_fails_or_is_redelivered, a_publish_that_is_given_up_disturbs_no_other,
    a_rejected_message_is_not_delivered_again,
    a_wait_for_a_delivery_that_is_given_up_loses_nothing,
    an_acknowledged_message_is_confirmed_and_not_redelivered,
};
#[doc(hidden)]
pub use broker::{
    a_server_that_is_stopped_in_the_middle_loses_nothing,
    subscribers_that_come_and_go_lose_nothing,
    unacknowledged_messages_are_delivered_to_the_next_subscriber,
    unacknowledged_messages_are_redelivered_after_a_lost_connection,
};
#[doc(hidden)]
pub use content::{
    a_repeat_is_the_same_message, a_tombstone_arrives_as_one,
    an_encoded_payload_decodes_on_the_other_side, attributes_that_are_not_set_stay_unset,
    attributes_with_control_characters_are_refused, every_attribute_arrives_unchanged,
    every_legal_header_arrives_unchanged, payloads_arrive_byte_for_byte,
    the_publisher_says_what_it_takes,
};
#[doc(hidden)]
pub use load::{
    a_closed_subscriber_confirms_nothing, a_subscriber_that_closes_leaves_no_publish_hanging,
    messages_of_one_key_arrive_in_their_order, thousands_of_messages_at_once_all_arrive_once,
};

use crate::{
    event::{EventId, Headers, Message, MessageId, MessageParts, Timestamp},
    failure::{FailureClass, full_text},
    testing::Recorder,
    transport::{Delivery, PublishError, Publisher, Receipt, Subscriber, publish_all},
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long an operation may take before the suite calls it hung: far longer than a loaded machine needs. Beside sixteen busy
/// processes RabbitMQ took 68 of 320 messages in half a minute.
const HUNG_AFTER: Duration = Duration::from_mins(2);

/// What a transport promises beyond the traits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Promises {
    /// A publish returns when the subscriber has acknowledged, rejected or returned the delivery: `ack` confirms it, `nack`
    /// and a dropped delivery fail it as transient, `reject` as permanent, and a closed subscriber fails it. Where this is
    /// false, a broker between the two halves confirms on its own and keeps messages.
    pub end_to_end: bool,
    /// A delivery that was nacked or dropped is delivered again.
    pub redelivers: bool,
    /// Messages of one key that are published one after another arrive in that order.
    pub order_per_key: bool,
    /// `Delivery::attempt` counts deliveries, from 1.
    pub counts_attempts: bool,
    /// The longest payload that the fixture's destination takes; the suite sends up to 1 MiB.
    pub max_payload: usize,
    /// Header values of up to 1 KiB that hold any character which is no control character, empty ones, and a hundred headers on
    /// one message arrive unchanged.
    pub all_header_values: bool,
}

impl Promises {
    /// A transport without a broker: the subscriber's ack decision is the publish's result. Everything else is promised but
    /// redelivery and counting.
    #[must_use]
    pub const fn end_to_end() -> Self {
        Self {
            end_to_end: true,
            redelivers: false,
            order_per_key: true,
            counts_attempts: false,
            max_payload: 1024 * 1024,
            all_header_values: true,
        }
    }

    /// A transport through a broker that keeps messages, confirms on its own and delivers again.
    #[must_use]
    pub const fn broker() -> Self {
        Self { end_to_end: false, redelivers: true, ..Self::end_to_end() }
    }

    /// Says whether deliveries are counted.
    #[must_use]
    pub const fn counts_attempts(mut self, counts: bool) -> Self {
        self.counts_attempts = counts;
        self
    }

    /// Says whether order per key is kept.
    #[must_use]
    pub const fn order_per_key(mut self, keeps: bool) -> Self {
        self.order_per_key = keeps;
        self
    }

    /// Says how long a payload may be.
    #[must_use]
    pub const fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Says whether every header value arrives unchanged.
    #[must_use]
    pub const fn all_header_values(mut self, all: bool) -> Self {
        self.all_header_values = all;
        self
    }
}

/// Makes a subscriber.
pub type Again = Box<dyn Fn() -> Box<dyn Subscriber> + Send + Sync>;

/// A publisher and a subscriber that are connected, and the values that must live as long as they.
pub struct Pair {
    /// The sending half.
    pub publisher: Arc<dyn Publisher>,
    /// The receiving half.
    pub subscriber: Box<dyn Subscriber>,
    /// Makes one more subscriber of the same destination, where a broker keeps messages for later subscribers.
    pub again: Option<Again>,
    /// A server or a container, dropped after both.
    pub keep: Box<dyn Any + Send>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").finish_non_exhaustive()
    }
}

impl Pair {
    /// Makes a pair.
    #[must_use]
    pub fn new(publisher: impl Publisher, subscriber: impl Subscriber) -> Self {
        Self {
            publisher: Arc::new(publisher),
            subscriber: Box::new(subscriber),
            again: None,
            keep: Box::new(()),
        }
    }

    /// Adds how to make one more subscriber of the same destination.
    #[must_use]
    pub fn subscribing_again<S: Subscriber>(
        mut self,
        again: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        self.again = Some(Box::new(move || Box::new(again())));
        self
    }

    /// Adds what must live as long as the pair.
    #[must_use]
    pub fn keeping(mut self, keep: impl Any + Send) -> Self {
        self.keep = Box::new(keep);
        self
    }
}

/// Makes the transport that the suite tests. Each call of [`pair`](Self::pair) makes a destination of its own, as tests run at the
/// same time.
#[async_trait]
pub trait TransportFixture: Send + Sync + 'static {
    /// Says what the transport promises.
    fn promises() -> Promises;

    /// Makes a connected pair on an empty destination.
    async fn pair() -> Pair;
}

/// Writes one test for each case of the transport suite, for a type that is a
/// [`TransportFixture`](crate::testing::transport::TransportFixture); with `, restarts`, for one that is a
/// [`RestartFixture`](crate::testing::transport::RestartFixture), the cases in which its server is stopped.
///
/// The crate that calls it needs `tokio` with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! transport_suite {
    ($fixture:ty) => {
        $crate::transport_suite! { @cases $fixture:
            every_attribute_arrives_unchanged
            attributes_that_are_not_set_stay_unset
            payloads_arrive_byte_for_byte
            an_encoded_payload_decodes_on_the_other_side
            a_tombstone_arrives_as_one
            every_legal_header_arrives_unchanged
            a_repeat_is_the_same_message
            the_publisher_says_what_it_takes
            an_acknowledged_message_is_confirmed_and_not_redelivered
            a_nacked_message_fails_or_is_redelivered
            a_dropped_delivery_counts_as_nacked
            a_rejected_message_is_not_delivered_again
            a_batch_has_one_result_each_in_its_order
            a_wait_for_a_delivery_that_is_given_up_loses_nothing
            a_publish_that_is_given_up_disturbs_no_other
            thousands_of_messages_at_once_all_arrive_once
            messages_of_one_key_arrive_in_their_order
            a_subscriber_that_closes_leaves_no_publish_hanging
            a_closed_subscriber_confirms_nothing
            unacknowledged_messages_are_delivered_to_the_next_subscriber
            subscribers_that_come_and_go_lose_nothing
        }
    };
    ($fixture:ty, restarts) => {
        $crate::transport_suite! { @cases $fixture:
            a_server_that_is_stopped_in_the_middle_loses_nothing
            unacknowledged_messages_are_redelivered_after_a_lost_connection
        }
    };
    (@cases $fixture:ty: $($case:ident)*) => {
        $(
            #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::testing::transport::$case::<$fixture>().await;
            }
        )*
    };
}

/// Makes the `n`th message of a key, small.
///
/// ```
/// # use outbox_core::testing::transport::numbered;
/// let second = numbered(2, "order-7");
/// assert_eq!(second.key.as_deref(), Some("order-7"));
/// assert_eq!(second.payload, r#"{"n":2}"#);
/// ```
#[must_use]
pub fn numbered(n: i64, key: &str) -> Message {
    let mut parts = full().into_parts();
    parts.sequence = Some(EventId(n));
    parts.key = Some(key.to_owned());
    parts.payload = Bytes::from(format!("{{\"n\":{n}}}"));
    Message::new(parts)
}

/// Makes a message with every attribute set.
#[must_use]
pub fn full() -> Message {
    let mut headers = Headers::new();
    for (name, value) in [
        ("tenant", "t-1"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ] {
        headers.insert(name, value).expect("the name and the value are legal");
    }
    Message::new(MessageParts {
        id: MessageId::generate(),
        sequence: Some(EventId(7)),
        source: "/services/shop".into(),
        event_type: "order.placed".into(),
        event_version: 3,
        topic: "orders".into(),
        aggregate_type: Some("order".into()),
        key: Some("order-7".into()),
        content_type: "application/json".into(),
        payload: Bytes::from_static(b"{\"total\":100}"),
        headers,
        created_at: Timestamp::from_micros(1_700_000_000_123_456),
        expires_at: Some(Timestamp::from_micros(4_000_000_000_000_001)),
        retry: None,
    })
}

/// Waits for an operation, and fails the test where it hangs.
async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    seeing(what, || "it did not end".to_owned(), work).await
}

/// Waits for an operation, and where it hangs fails the test with the observations so far.
async fn seeing<T>(what: &str, saw: impl Fn() -> String, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(HUNG_AFTER, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what} took longer than {HUNG_AFTER:?}: {}", saw()),
    }
}

/// Waits until all messages have arrived; where they do not, the failure says how many did.
async fn all_arrive<T>(recorder: &Recorder, all: usize, work: impl Future<Output = T>) -> T {
    seeing("all messages", || format!("{} of {all} came", recorder.distinct()), work).await
}

/// Makes a pair that is ready. Behind a broker that means that a message has gone through: a queue that was declared a moment
/// ago may refuse messages and consumers for another moment, which a relay and a consumer retry, and the suite does not.
async fn ready<T: TransportFixture>() -> Pair {
    let mut pair = T::pair().await;
    if !T::promises().end_to_end {
        go_through(&mut pair).await;
    }
    pair
}

/// Sends a message through a broker until it is confirmed and received.
async fn go_through(pair: &mut Pair) {
    const PAUSE: Duration = Duration::from_millis(50);
    let first = full();
    let refusal = Mutex::new("nothing".to_owned());
    let saw = || {
        format!("the last failure was: {}", refusal.lock().unwrap_or_else(PoisonError::into_inner))
    };
    let note = |failure: String| *refusal.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    seeing("the first publish", saw, async {
        while let Err(error) = pair.publisher.publish(&first).await {
            assert_ne!(error.class(), FailureClass::Permanent, "{}", error.full_text());
            note(error.full_text());
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
    let delivery = seeing("the first delivery", saw, async {
        loop {
            match pair.subscriber.next().await {
                Ok(delivery) => return delivery.expect("the subscription is open"),
                Err(error) => note(full_text(&error)),
            }
        }
    })
    .await;
    assert_eq!(delivery.message.as_ref().map(|message| message.id), Ok(first.id));
    delivery.ack().await.expect("the ack decision is taken");
}

/// Fails the test at once where a broker has not confirmed: the suite would wait for the message in vain.
fn confirmed_by_a_broker<T: TransportFixture>(result: &Result<Receipt, PublishError>) {
    if let Err(error) = result
        && !T::promises().end_to_end
    {
        panic!("the broker has not confirmed: {}", error.full_text());
    }
}

/// Publishes a batch.
async fn publish_batch<T: TransportFixture>(
    publisher: &dyn Publisher,
    batch: &[Message],
) -> Vec<Result<Receipt, PublishError>> {
    let results = in_time("a batch", publish_all(publisher, batch)).await;
    results.iter().for_each(confirmed_by_a_broker::<T>);
    results
}

/// Waits for the next delivery.
async fn next(subscriber: &mut dyn Subscriber) -> Delivery {
    let delivery = in_time("the next delivery", subscriber.next()).await;
    delivery.expect("the subscription holds").expect("the subscription is open")
}

/// Takes the next delivery, acknowledges it and gives its message.
async fn take(subscriber: &mut dyn Subscriber) -> Message {
    let delivery = next(subscriber).await;
    let message = delivery.message.clone().expect("the message can be read");
    delivery.ack().await.expect("the ack decision is taken");
    message
}

/// Publishes a message and receives it.
async fn exchange(pair: &mut Pair, message: &Message) -> Message {
    // A failed publish fails the test at once; the suite would wait for the delivery in vain.
    let publish = async {
        in_time("a publish", pair.publisher.publish(message))
            .await
            .expect("an acknowledged message is confirmed");
    };
    tokio::join!(publish, take(pair.subscriber.as_mut())).1
}

/// Publishes a message while its one delivery is acknowledged, rejected or returned, and gives the publish's result.
async fn publish_while<T: TransportFixture, F: Future<Output = ()>>(
    pair: &mut Pair,
    message: &Message,
    decide: impl FnOnce(Delivery) -> F,
) -> Result<Receipt, PublishError> {
    let publish = async {
        let result = in_time("a publish", pair.publisher.publish(message)).await;
        confirmed_by_a_broker::<T>(&result);
        result
    };
    let decided = async { decide(next(pair.subscriber.as_mut()).await).await };
    tokio::join!(publish, decided).0
}

#[cfg(test)]
mod in_process {
    use super::*;
    use crate::transport::Memory;

    struct InProcess;

    #[async_trait]
    impl TransportFixture for InProcess {
        fn promises() -> Promises {
            Promises::end_to_end()
        }

        async fn pair() -> Pair {
            let (publisher, subscriber) = Memory::channel();
            Pair::new(publisher, subscriber)
        }
    }

    crate::transport_suite!(InProcess);
}
