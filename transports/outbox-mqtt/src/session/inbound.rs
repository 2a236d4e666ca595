//! The state that a connection's task shares with the subscriber and the ack decisions: messages
//! that came and are not acknowledged.

use super::pending::{Arrival, IdInUse, Next, Pending, Tag};
use crate::{
    classify::Failure,
    headers::{self, ReadOptions},
};
use bytes::Bytes;
use outbox_core::{
    event::{Message, MessageId, Timestamp},
    runtime::{now, wall_clock},
};
use rumqttc::mqttbytes::{
    QoS,
    v5::{Publish, PublishProperties},
};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::sleep_until};

/// Most bytes of messages that are not handled. The server counts messages alone, and those of
/// QoS 0 not at all: beyond this the connection reads nothing until something is handled.
const MAX_BYTES: usize = 32 << 20;
/// Bytes that a message takes beside those of its packet: its entry, its parsed attributes.
const OVERHEAD: usize = 1_024;

/// Messages that were handled on a connection that was lost before the server knew, by the numbers
/// under which the server sends them again.
pub(crate) type Carried = HashMap<u16, MessageId>;

/// A message as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) message: Result<Message, String>,
    pub(crate) unread: Unread,
}

/// What came, for a message that cannot be read and for a dead letter.
#[derive(Debug, Clone)]
pub(crate) struct Unread {
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) properties: Arc<PublishProperties>,
}

/// How messages are read.
#[derive(Debug, Clone)]
pub(crate) struct InboundOptions {
    pub(crate) read: ReadOptions,
    /// Most bytes of a payload.
    pub(crate) max_payload: usize,
    /// Whether acknowledgements keep the order of arrival.
    pub(crate) in_order: bool,
}

/// The messages of one connection.
pub(crate) struct Inbound {
    options: InboundOptions,
    state: Mutex<State>,
    /// Wakes the subscriber.
    arrived: Notify,
    /// Wakes the connection that waits for room.
    room: Notify,
}

struct State {
    pending: Pending<Received>,
    end: Option<Failure>,
}

impl Inbound {
    pub(crate) fn new(options: InboundOptions, carried: Carried) -> Self {
        let pending = Pending::new(options.in_order, carried);
        Self {
            options,
            state: Mutex::new(State { pending, end: None }),
            arrived: Notify::new(),
            room: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message of the server. Gives the numbers of those to acknowledge at once.
    ///
    /// # Errors
    /// The message breaks what the two sides have agreed on.
    pub(super) fn accept(&self, publish: Publish) -> Result<Vec<u16>, Failure> {
        if publish.qos == QoS::ExactlyOnce || publish.topic.is_empty() {
            let text = "the server sent a message of QoS 2 or without a topic, unasked";
            return Err(Failure::ended(text));
        }
        let (id, is_repeat) = ((publish.pkid != 0).then_some(publish.pkid), publish.dup);
        let size = publish.size() + OVERHEAD;
        let record = self.read(publish);
        let message = record.message.as_ref().ok();
        let key = message.and_then(|message| message.key.as_deref()).map(|key| {
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            hasher.finish()
        });
        let message = message.map(|message| message.id);
        let arrival = Arrival { id, message, key, size, is_repeat, record };
        let inserted = self.state().pending.insert(arrival);
        self.arrived.notify_one();
        inserted.map_err(|IdInUse(id)| {
            Failure::ended(format!("the server gave the packet identifier {id} to two messages"))
        })
    }

    fn read(&self, publish: Publish) -> Received {
        let Publish { topic, payload, properties, .. } = publish;
        let properties = Arc::new(properties.unwrap_or_default());
        let (size, most) = (payload.len(), self.options.max_payload);
        let message = if size > most {
            Err(format!("the payload has {size} bytes, of at most {most}"))
        } else {
            let name = super::topic_of(&topic);
            let received_at = Timestamp::from(wall_clock());
            headers::read(&self.options.read, &name, &properties, payload.clone(), received_at)
        };
        Received { message, unread: Unread { topic, payload, properties } }
    }

    /// Gives the next message to deliver; fails when the connection is lost.
    ///
    /// # Cancel safety
    /// A call that is dropped takes nothing.
    pub(crate) async fn next(&self) -> Result<(Tag, Received), Failure> {
        loop {
            let next = {
                let mut state = self.state();
                if let Some(failure) = &state.end {
                    return Err(failure.clone());
                }
                state.pending.next(now())
            };
            match next {
                Next::Ready(tag, received) => return Ok((tag, received)),
                Next::NotBefore(due) => {
                    tokio::select! {
                        () = self.arrived.notified() => {}
                        () = sleep_until(due.into()) => {}
                    }
                }
                Next::Nothing => self.arrived.notified().await,
            }
        }
    }

    /// Notes that a message is handled. Gives the numbers to acknowledge; `None` where the
    /// connection is lost and the server sends the message again.
    pub(super) fn done(&self, tag: Tag) -> Option<Vec<u16>> {
        let acknowledged = self.state().pending.done(tag);
        // A later message of its key may be ready now.
        self.arrived.notify_one();
        self.room.notify_one();
        acknowledged
    }

    /// Returns a message, to be delivered again after a while.
    pub(super) fn requeue(&self, tag: Tag, delay: Duration) {
        let due = (!delay.is_zero()).then(|| now() + delay);
        self.state().pending.requeue(tag, due);
        self.arrived.notify_one();
    }

    /// Notes that the ack decisions of messages are reported as carried out.
    pub(super) fn reported(&self, ids: &[u16]) {
        self.state().pending.reported(ids);
    }

    /// Notes that the server has forgotten messages.
    pub(super) fn forgotten(&self, ids: &[u16]) {
        self.state().pending.forgotten(ids);
    }

    /// Tells whether nothing more should be read for now.
    pub(super) fn is_full(&self) -> bool {
        self.state().pending.bytes() >= MAX_BYTES
    }

    /// Waits until there may be room.
    pub(super) async fn room(&self) {
        self.room.notified().await;
    }

    /// Notes that the connection is lost.
    pub(super) fn end(&self, failure: Failure) {
        self.state().end = Some(failure);
        self.arrived.notify_one();
    }

    /// Takes what was handled and not acknowledged, for the next connection.
    pub(crate) fn take_handled(&self) -> Carried {
        self.state().pending.take_handled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_the_server_does_not_count_are_bounded_though_they_have_few_bytes() {
        let options =
            InboundOptions { read: ReadOptions::default(), max_payload: 1_000, in_order: true };
        let inbound = Inbound::new(options, Carried::new());
        let mut messages = 0;
        while !inbound.is_full() && messages < 1_000_000 {
            let publish = Publish::new("t", QoS::AtMostOnce, "x", None);
            assert_eq!(inbound.accept(publish), Ok(Vec::new()));
            messages += 1;
        }
        assert!((20_000..=32_768).contains(&messages), "{messages}");
    }
}
