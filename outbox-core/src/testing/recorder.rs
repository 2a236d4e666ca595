//! What was delivered, how often and in which order.

use crate::{
    event::{Message, MessageId},
    transport::{Delivery, PublishError, Publisher, Receipt, SubscribeError, Subscriber},
};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

type Script = Box<dyn Fn(&Message, u32) -> Result<(), PublishError> + Send + Sync>;

/// Records messages. Clones record into the same place.
///
/// It is a [`Publisher`] for tests of the relay, can be fed by hand from a handler ([`record`](Self::record)), and can drain a
/// [`Subscriber`] ([`drain`](Self::drain)). Waiting is by a signal, never by sleeping.
///
/// ```
/// # use outbox_core::{event::Message, testing::Recorder, transport::Publisher};
/// # use std::time::Duration;
/// # struct OrderPlaced { order_id: i64 }
/// # impl outbox_core::event::OutboxEvent for OrderPlaced {
/// #     fn meta(&self) -> outbox_core::event::EventMeta<'_> {
/// #         outbox_core::event::EventMeta::new("order.placed").topic("orders").key(Some(self.order_id.to_string()))
/// #     }
/// #     fn payload(&self) -> Result<bytes::Bytes, outbox_core::event::EncodeError> {
/// #         Ok(format!(r#"{{"order_id":{}}}"#, self.order_id).into())
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let recorder = Recorder::new();
/// recorder.publish(&Message::for_test(&OrderPlaced { order_id: 7 })?).await?; // a relay's route does this
/// let delivered = recorder.wait_for(1, Duration::from_secs(5)).await?;
/// assert_eq!(delivered[0].event_type, "order.placed");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    log: Mutex<Log>,
    delivered: watch::Sender<usize>,
    script: Option<Script>,
}

#[derive(Default)]
struct Log {
    delivered: Vec<Message>,
    attempts: HashMap<MessageId, u32>,
}

/// A wait that ended before what was waited for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("waited {waited:?} for {expected}, and {delivered} messages were delivered")]
pub struct Late {
    /// What was waited for.
    pub expected: String,
    /// How many deliveries there were by then.
    pub delivered: usize,
    /// How long it took.
    pub waited: Duration,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("delivered", &self.count()).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Makes an empty one that confirms every publish.
    #[must_use]
    pub fn new() -> Self {
        Self::build(None)
    }

    /// Makes one that confirms what the script lets pass. The script is given the message and which attempt at it this is,
    /// from 1; what it refuses is not recorded as delivered.
    ///
    /// ```
    /// # use outbox_core::{event::Message, testing::Recorder, transport::{PublishError, Publisher}};
    /// # struct OrderPlaced { order_id: i64 }
    /// # impl outbox_core::event::OutboxEvent for OrderPlaced {
    /// #     fn meta(&self) -> outbox_core::event::EventMeta<'_> {
    /// #         outbox_core::event::EventMeta::new("order.placed").topic("orders").key(Some(self.order_id.to_string()))
    /// #     }
    /// #     fn payload(&self) -> Result<bytes::Bytes, outbox_core::event::EncodeError> {
    /// #         Ok(format!(r#"{{"order_id":{}}}"#, self.order_id).into())
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let recorder = Recorder::scripted(|_, attempt| match attempt {
    ///     1 => Err(PublishError::transient("the destination is busy")),
    ///     _ => Ok(()),
    /// });
    /// let message = Message::for_test(&OrderPlaced { order_id: 7 })?;
    /// assert!(recorder.publish(&message).await.is_err());
    /// assert!(recorder.publish(&message).await.is_ok());
    /// assert_eq!((recorder.attempts(message.id), recorder.times(message.id)), (2, 1));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn scripted(
        script: impl Fn(&Message, u32) -> Result<(), PublishError> + Send + Sync + 'static,
    ) -> Self {
        Self::build(Some(Box::new(script)))
    }

    fn build(script: Option<Script>) -> Self {
        Self(Arc::new(Shared { log: Mutex::default(), delivered: watch::Sender::new(0), script }))
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records one delivery.
    pub fn record(&self, message: &Message) {
        let count = {
            let mut log = self.log();
            log.delivered.push(message.clone());
            log.delivered.len()
        };
        // Two that record at once may come here in the other order.
        self.0.delivered.send_modify(|n| *n = count.max(*n));
    }

    /// Acknowledges and records everything that a subscriber gives, until it is closed; what cannot be read is rejected.
    ///
    /// ```
    /// # use outbox_core::{testing::Recorder, transport::Memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (publisher, mut subscriber) = Memory::channel();
    /// drop(publisher); // closes the subscriber
    /// let recorder = Recorder::new();
    /// recorder.drain(&mut subscriber).await?;
    /// assert_eq!(recorder.count(), 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`SubscribeError`] when the connection is lost.
    ///
    /// # Cancel safety
    /// Dropped, it loses at most the acknowledgement of one recorded message, which then comes again.
    pub async fn drain(&self, subscriber: &mut dyn Subscriber) -> Result<(), SubscribeError> {
        while let Some(delivery) = subscriber.next().await? {
            self.take(delivery).await;
        }
        Ok(())
    }

    /// Records one delivery and acknowledges it.
    pub async fn take(&self, delivery: Delivery) {
        // Whom the answer does not reach sends again; the record then shows the repeat.
        let _ = match delivery.message.clone() {
            Ok(message) => {
                self.record(&message);
                delivery.ack().await
            }
            Err(reason) => delivery.reject(&reason).await,
        };
    }

    /// Gives everything delivered so far, in order, repeats included.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.log().delivered.clone()
    }

    /// Tells how many deliveries there were, repeats included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.log().delivered.len()
    }

    /// Tells how many different messages were delivered.
    #[must_use]
    pub fn distinct(&self) -> usize {
        self.log().delivered.iter().map(|m| m.id).collect::<HashSet<_>>().len()
    }

    /// Tells how often a message was delivered.
    #[must_use]
    pub fn times(&self, id: MessageId) -> usize {
        self.log().delivered.iter().filter(|m| m.id == id).count()
    }

    /// Tells how often a message was published, refused attempts included.
    #[must_use]
    pub fn attempts(&self, id: MessageId) -> u32 {
        self.log().attempts.get(&id).copied().unwrap_or(0)
    }

    /// Gives every message that was delivered more than once, with how often.
    #[must_use]
    pub fn repeated(&self) -> Vec<(MessageId, usize)> {
        let mut times: HashMap<MessageId, usize> = HashMap::new();
        for message in &self.log().delivered {
            *times.entry(message.id).or_default() += 1;
        }
        times.into_iter().filter(|&(_, n)| n > 1).collect()
    }

    /// Gives the first deliveries of each key, in order; messages without a key are left out.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<String, Vec<Message>> {
        let (mut seen, mut keys) = (HashSet::new(), BTreeMap::<String, Vec<Message>>::new());
        for message in &self.log().delivered {
            if let Some(key) = &message.key
                && seen.insert(message.id)
            {
                keys.entry(key.clone()).or_default().push(message.clone());
            }
        }
        keys
    }

    /// Gives the keys whose first deliveries did not follow their `sequence`, or where one had none.
    ///
    /// ```
    /// # use outbox_core::testing::{Recorder, transport::numbered};
    /// let recorder = Recorder::new();
    /// for n in [1, 3, 2] {
    ///     recorder.record(&numbered(n, "order-7"));
    /// }
    /// assert_eq!(recorder.keys_out_of_order(), ["order-7"]);
    /// ```
    #[must_use]
    pub fn keys_out_of_order(&self) -> Vec<String> {
        let ordered = |messages: &[Message]| {
            messages.iter().all(|m| m.sequence.is_some())
                && messages.is_sorted_by_key(|m| m.sequence)
        };
        self.by_key()
            .into_iter()
            .filter(|(_, messages)| !ordered(messages))
            .map(|(key, _)| key)
            .collect()
    }

    /// Waits until there were at least `n` deliveries, repeats included, and gives all of them.
    ///
    /// # Errors
    /// [`Late`] when that takes longer than `within`.
    pub async fn wait_for(&self, n: usize, within: Duration) -> Result<Vec<Message>, Late> {
        self.wait_until(&format!("{n} deliveries"), within, |messages| messages.len() >= n).await
    }

    /// Waits until at least `n` different messages were delivered, and gives all deliveries.
    ///
    /// # Errors
    /// [`Late`] when that takes longer than `within`.
    pub async fn wait_for_distinct(
        &self,
        n: usize,
        within: Duration,
    ) -> Result<Vec<Message>, Late> {
        let distinct =
            |messages: &[Message]| messages.iter().map(|m| m.id).collect::<HashSet<_>>().len();
        // The count is looked at first, as it is at hand.
        self.wait_until(&format!("{n} messages"), within, |messages| {
            messages.len() >= n && distinct(messages) >= n
        })
        .await
    }

    /// Waits until the deliveries are as wished, and gives them. `expected` says what in a failure's words.
    ///
    /// ```
    /// # use outbox_core::testing::{Late, Recorder};
    /// # use std::time::Duration;
    /// # async fn example(recorder: &Recorder) -> Result<(), Late> {
    /// let shipped = |messages: &[outbox_core::event::Message]| {
    ///     messages.iter().any(|message| message.event_type == "order.shipped")
    /// };
    /// recorder.wait_until("a shipped order", Duration::from_secs(10), shipped).await?;
    /// assert!(recorder.keys_out_of_order().is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Late`] when that takes longer than `within`.
    pub async fn wait_until(
        &self,
        expected: &str,
        within: Duration,
        mut wished: impl FnMut(&[Message]) -> bool,
    ) -> Result<Vec<Message>, Late> {
        let mut signal = self.0.delivered.subscribe();
        let came =
            timeout(within, signal.wait_for(|_| wished(&self.log().delivered))).await.is_ok();
        let messages = self.messages();
        if came {
            return Ok(messages);
        }
        Err(Late { expected: expected.to_owned(), delivered: messages.len(), waited: within })
    }
}

#[async_trait]
impl Publisher for Recorder {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let attempt = {
            let mut log = self.log();
            let attempt = log.attempts.entry(message.id).or_default();
            *attempt += 1;
            *attempt
        };
        if let Some(script) = &self.0.script {
            script(message, attempt)?;
        }
        self.record(message);
        Ok(Receipt::new().to("recorder"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::transport::numbered;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_wait_ends_with_the_delivery_that_it_waited_for() {
        let recorder = Recorder::new();
        let waiter = recorder.wait_for(2, SOON);
        let feeder = async {
            for n in 1..=2 {
                recorder.publish(&numbered(n, "k")).await.expect("confirmed");
            }
        };
        let (messages, ()) = tokio::join!(waiter, feeder);
        assert_eq!(messages.expect("both came").len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_too_many_says_how_many_came() {
        let recorder = Recorder::new();
        recorder.record(&numbered(1, "k"));
        let late = recorder.wait_for_distinct(2, SOON).await.expect_err("only one came");
        assert_eq!(late.to_string(), "waited 5s for 2 messages, and 1 messages were delivered");
    }

    #[tokio::test]
    async fn repeats_and_disorder_are_told() {
        let recorder = Recorder::new();
        let (first, second, third) = (numbered(1, "a"), numbered(2, "a"), numbered(3, "b"));
        for message in [&second, &first, &second, &third] {
            recorder.record(message);
        }
        assert_eq!((recorder.count(), recorder.distinct(), recorder.times(second.id)), (4, 3, 2));
        assert_eq!(recorder.repeated(), [(second.id, 2)]);
        assert_eq!(recorder.keys_out_of_order(), ["a"]);
    }

    #[tokio::test]
    async fn a_script_refuses_and_is_told_the_attempt() {
        let recorder = Recorder::scripted(|_, attempt| match attempt {
            1 => Err(PublishError::transient("not yet")),
            _ => Ok(()),
        });
        let message = numbered(1, "k");
        assert!(recorder.publish(&message).await.is_err());
        assert_eq!((recorder.count(), recorder.attempts(message.id)), (0, 1));
        assert!(recorder.publish(&message).await.is_ok());
        assert_eq!((recorder.count(), recorder.attempts(message.id)), (1, 2));
    }
}
