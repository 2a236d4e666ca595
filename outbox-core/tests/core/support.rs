//! Events, messages and consumers of the tests.

use bytes::Bytes;
use outbox_core::{
    consumer::{Consumer, ConsumerBuilder, ConsumerStats, HandlerContext},
    event::{
        DecodeError, DecodeEvent, EventContract, EventType, Headers, Message, MessageId,
        MessageParts, Timestamp,
    },
    testing::{MemoryStore, MemoryTx},
    transport::{Acknowledge, Delivery, Memory, SubscribeError, Subscriber},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

pub(crate) type Cx = HandlerContext<MemoryTx>;

/// An order with its number, whose type is `order.placed`.
#[derive(Debug, PartialEq)]
pub(crate) struct OrderPlaced(pub(crate) u64);

impl EventContract for OrderPlaced {
    const TYPES: &'static [EventType] =
        &[EventType { name: "order.placed", version: 1, topic: "orders" }];
}

impl DecodeEvent for OrderPlaced {
    fn decode(message: &Message) -> Result<Self, DecodeError> {
        if message.event_version != 1 {
            return Err(DecodeError::UnknownVersion {
                event_type: message.event_type.clone(),
                version: message.event_version,
                supported: 1,
            });
        }
        let number =
            serde_json::from_slice(&message.payload).map_err(|_| DecodeError::Payload {
                event_type: message.event_type.clone(),
                source: "a number was expected".into(),
            })?;
        Ok(Self(number))
    }
}

pub(crate) fn parts(event_type: &str, payload: &str, key: Option<&str>) -> MessageParts {
    MessageParts {
        id: MessageId::generate(),
        sequence: None,
        source: "/shop".into(),
        event_type: event_type.into(),
        event_version: 1,
        topic: "orders".into(),
        aggregate_type: None,
        key: key.map(Into::into),
        content_type: "application/json".into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        headers: Headers::new(),
        created_at: Timestamp::from_micros(0),
        expires_at: None,
        retry: None,
    }
}

pub(crate) fn order(number: u64) -> Message {
    Message::new(parts("order.placed", &number.to_string(), None))
}

pub(crate) fn order_of(key: &str, number: u64) -> Message {
    Message::new(parts("order.placed", &number.to_string(), Some(key)))
}

/// Writes the order's number.
pub(crate) async fn write(order: OrderPlaced, cx: &Cx) -> Result<(), std::io::Error> {
    cx.tx.insert(format!("{}:{}", cx.handler(), order.0));
    Ok(())
}

pub(crate) fn consumer(store: &MemoryStore) -> (ConsumerBuilder<MemoryStore>, Memory) {
    let (publisher, subscriber) = Memory::channel();
    (Consumer::builder("receipts", store).subscribe(subscriber), publisher)
}

/// Stops a consumer that should stop well, and gives what it has done.
pub(crate) async fn stop(handle: Consumer) -> ConsumerStats {
    let stats = handle.stats();
    handle.shutdown(Duration::from_secs(10)).await.expect("it stops in time");
    *stats.borrow()
}

/// Waits until the consumer has come to a state.
pub(crate) async fn until(handle: &Consumer, mut state: impl FnMut(&ConsumerStats) -> bool) {
    let mut stats = handle.stats();
    if let Ok(reached) =
        tokio::time::timeout(Duration::from_secs(600), stats.wait_for(|s| state(s))).await
    {
        reached.expect("the consumer runs");
        return;
    }
    panic!("within ten minutes the consumer came to no more than {:?}", *handle.stats().borrow());
}

/// Waits until a condition holds that the consumer's stats do not show; `seen` gives what it reads.
pub(crate) async fn until_seen<T: std::fmt::Debug>(
    what: &str,
    seen: impl Fn() -> T,
    holds: impl Fn(&T) -> bool,
) {
    let begun = tokio::time::Instant::now();
    loop {
        let now = seen();
        if holds(&now) {
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_hours(2),
            "{what}; after two hours there is {now:?}"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// How a consumer ended a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AckResult {
    Ack,
    Nack,
    Reject(String),
    /// The delivery was dropped without an ack decision.
    Dropped,
}

/// A broker with one queue: tests send deliveries one by one, in order, and watch their ack decisions.
pub(crate) struct Queue(mpsc::UnboundedSender<Result<Delivery, String>>);

pub(crate) struct QueueSubscriber(mpsc::UnboundedReceiver<Result<Delivery, String>>);

pub(crate) struct PendingAck(oneshot::Receiver<AckResult>);

pub(crate) fn queue() -> (Queue, QueueSubscriber) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Queue(sender), QueueSubscriber(receiver))
}

impl Queue {
    pub(crate) fn deliver(
        &self,
        message: Result<Message, String>,
        attempt: Option<u32>,
    ) -> PendingAck {
        let (sender, receiver) = oneshot::channel();
        let delivery = Delivery::new(message, attempt, Box::new(Handle(sender)));
        self.0.send(Ok(delivery)).expect("the subscriber lives");
        PendingAck(receiver)
    }

    /// Delivers as a sender does that waits so long for the ack decision.
    pub(crate) fn deliver_awaited(&self, message: Message, within: Duration) -> PendingAck {
        let (sender, receiver) = oneshot::channel();
        let (now, handle) = (outbox_core::runtime::now(), Box::new(Handle(sender)));
        self.0
            .send(Ok(Delivery::new(Ok(message), None, handle).awaited(now, now + within)))
            .expect("the subscriber lives");
        PendingAck(receiver)
    }

    /// Delivers as a sender does that waits for the ack decision.
    pub(crate) fn deliver_from_a_sender(&self, message: Message) -> PendingAck {
        let (sender, receiver) = oneshot::channel();
        let delivery =
            Delivery::new(Ok(message), None, Box::new(Handle(sender))).that_comes_back_in_order();
        self.0.send(Ok(delivery)).expect("the subscriber lives");
        PendingAck(receiver)
    }

    /// Delivers with an acknowledgement of the test's own.
    pub(crate) fn deliver_with(&self, message: Message, handle: impl Acknowledge + 'static) {
        let delivery = Delivery::new(Ok(message), None, Box::new(handle));
        self.0.send(Ok(delivery)).expect("the subscriber lives");
    }

    /// Lets the connection break once.
    pub(crate) fn break_connection(&self) {
        self.0.send(Err("reset by peer".into())).expect("the subscriber lives");
    }
}

impl PendingAck {
    pub(crate) async fn wait(self) -> AckResult {
        let decision = tokio::time::timeout(Duration::from_hours(48), self.0).await;
        decision.expect("the delivery ends within two days").unwrap_or(AckResult::Dropped)
    }
}

#[async_trait::async_trait]
impl Subscriber for QueueSubscriber {
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        self.0.recv().await.transpose().map_err(|text| SubscribeError(text.into()))
    }
}

struct Handle(oneshot::Sender<AckResult>);

impl Handle {
    fn decide(self, decision: AckResult) -> Result<(), SubscribeError> {
        self.0.send(decision).map_err(|_| SubscribeError("the test does not wait".into()))
    }
}

#[async_trait::async_trait]
impl Acknowledge for Handle {
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError> {
        self.decide(AckResult::Ack)
    }
    async fn nack(self: Box<Self>, _requeue: bool) -> Result<(), SubscribeError> {
        self.decide(AckResult::Nack)
    }
    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        self.decide(AckResult::Reject(reason.to_owned()))
    }

    fn is_given_up(&self) -> bool {
        self.0.is_closed()
    }
}

/// A log that handlers and tests share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn note(&self, line: impl Into<String>) {
        self.0.lock().expect("no panic while noting").push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panic while noting").clone()
    }
}
