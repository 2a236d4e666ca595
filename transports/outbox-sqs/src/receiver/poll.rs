//! The task that receives: long polls one after the other, as there is room.

use super::{AckDecision, MAX_ENTRIES, Received, Store};
use crate::{
    classify::{Failure, Kind},
    headers::{self, DeadMessage, ReadOptions},
    topology::{Directory, PlaceKind},
};
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, Message, MessageSystemAttributeName as System,
};
use outbox_core::{
    event::Timestamp,
    runtime::{now, wall_clock},
};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

/// First wait after a failure; it doubles.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// Longest such wait: how late the subscriber notices a recovery at worst.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// How long a subscriber that closes waits for a poll that is under way. A message that it brings
/// later is invisible until its time is up.
const CLOSES_WITHIN: Duration = Duration::from_secs(2);

/// Whether a subscriber goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It goes on; it has ended without closing where the other end is dropped.
    No,
    /// It closes, and waits for the end of its task.
    Closing,
}

/// The task of one subscriber.
pub(crate) struct Poll {
    pub(crate) store: Arc<Store>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) queue: String,
    pub(crate) prefetch: usize,
    /// How long the service waits for a message.
    pub(crate) wait: Duration,
    /// How long a message is invisible to others.
    pub(crate) visibility: Duration,
    pub(crate) read_options: ReadOptions,
    pub(crate) decisions: mpsc::UnboundedSender<AckDecision>,
    pub(crate) stop: watch::Receiver<Stop>,
}

impl Poll {
    /// Receives until it is to stop, and returns then what was not handed out.
    pub(crate) async fn run(self) {
        let (mut stop, mut backoff) = (self.stop.clone(), Duration::ZERO);
        loop {
            let room = tokio::select! {
                biased;
                _ = stop.changed() => break,
                room = self.store.room(self.prefetch) => room,
            };
            let mut receiving = pin!(self.receive(room));
            let received = tokio::select! {
                biased;
                received = &mut receiving => received,
                _ = stop.changed() => {
                    self.return_waiting();
                    // A poll that is given up may still take messages from the queue.
                    let closing = *stop.borrow() == Stop::Closing;
                    let within = if closing { CLOSES_WITHIN } else { self.reply_within() };
                    let _ = timeout(within, receiving).await;
                    break;
                }
            };
            match received {
                Ok(()) => backoff = Duration::ZERO,
                Err(failure) => {
                    if failure.kind == Kind::Missing {
                        self.directory.forget(PlaceKind::Queue, &self.queue).await;
                    }
                    self.store.fail(failure);
                    backoff = (backoff * 2).clamp(MIN_BACKOFF, MAX_BACKOFF);
                    tokio::select! {
                        biased;
                        _ = stop.changed() => break,
                        () = sleep(backoff) => {}
                    }
                }
            }
        }
        self.return_waiting();
    }

    fn reply_within(&self) -> Duration {
        self.wait + self.directory.clients.timeout
    }

    async fn receive(&self, room: usize) -> Result<(), Failure> {
        let url = self.directory.queue(&self.queue).await?;
        let clients = &self.directory.clients;
        let request = clients
            .sqs
            .receive_message()
            .queue_url(url)
            .max_number_of_messages(i32::try_from(room).unwrap_or(1))
            .wait_time_seconds(seconds(self.wait))
            .visibility_timeout(seconds(self.visibility))
            .message_attribute_names("All")
            .message_system_attribute_names(System::All);
        let started = now();
        let reply = clients.request_for("gave no messages", self.reply_within(), request.send());
        let reply = reply.await.map_err(|failure| failure.at("queue", &self.queue))?;
        let messages = reply.messages.unwrap_or_default();
        // The service counts from when it found them, which is not known: behind its wait for
        // messages, and before the way of its reply, for which a third of the time is left.
        let until = (now() + self.visibility * 2 / 3).max(started + self.visibility);
        let mut received = Vec::with_capacity(messages.len());
        for mut message in messages {
            match message.receipt_handle.take() {
                Some(receipt) => received.push((receipt, self.read(message))),
                None => tracing::warn!("a message without a receipt handle was ignored"),
            }
        }
        // Without messages it wakes whoever waits, who asks again.
        self.store.add(received, until);
        Ok(())
    }

    fn read(&self, message: Message) -> Received {
        let mut system = message.attributes.unwrap_or_default();
        let body = message.body.unwrap_or_default();
        let mut attributes: Vec<(String, String)> = message
            .message_attributes
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.string_value?)))
            .collect();
        let deliveries = system.get(&System::ApproximateReceiveCount);
        let deliveries = deliveries.and_then(|count| count.parse().ok()).unwrap_or(1);
        let sent_at = system.get(&System::SentTimestamp).and_then(|at| at.parse::<i64>().ok());
        let sent_at = sent_at.and_then(|millis| millis.checked_mul(1_000));
        let sent_at = sent_at.map_or_else(|| Timestamp::from(wall_clock()), Timestamp::from_micros);
        let source = system.get(&System::DeadLetterQueueSourceArn);
        let has_cause = attributes.iter().any(|(name, _)| DeadMessage::is_attribute(name));
        if let Some(source) = source.filter(|_| !has_cause) {
            let (name, cause) = DeadMessage::moved(source).attribute();
            attributes.push((name.into_owned(), cause));
        }
        let read = headers::read(&self.read_options, &self.queue, &attributes, &body, sent_at);
        Received {
            id: message.message_id.unwrap_or_default(),
            group: system.remove(&System::MessageGroupId),
            deliveries,
            body,
            attributes,
            message: read,
        }
    }

    /// Has what was not handed out returned, at once instead of when its time is up. The task with
    /// the ack decisions does it: an extension of these messages may be under way, and undo it.
    fn return_waiting(&self) {
        // It fails where that task has ended: their time is up soon.
        let _ = self.decisions.send(AckDecision::ReturnWaiting);
    }
}

/// Gives whole seconds, which is what the service takes.
pub(super) fn seconds(span: Duration) -> i32 {
    i32::try_from(span.as_secs()).unwrap_or(i32::MAX)
}

/// Makes messages visible again after a delay, in their order.
pub(super) async fn make_visible(
    directory: &Directory,
    queue: &str,
    receipts: &[String],
    delay: Duration,
) -> Result<(), Failure> {
    for chunk in receipts.chunks(MAX_ENTRIES) {
        let refused = change_visibility(directory, queue, chunk, delay).await?;
        if let Some((_, failure)) = refused.into_iter().next() {
            return Err(failure);
        }
    }
    Ok(())
}

/// Changes how long messages stay invisible, at most ten; gives those that the service refuses.
pub(super) async fn change_visibility(
    directory: &Directory,
    queue: &str,
    receipts: &[String],
    visibility: Duration,
) -> Result<Vec<(usize, Failure)>, Failure> {
    let url = directory.queue(queue).await?;
    let mut request = directory.clients.sqs.change_message_visibility_batch().queue_url(url);
    for (number, receipt) in receipts.iter().enumerate() {
        let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
            .id(number.to_string())
            .receipt_handle(receipt)
            .visibility_timeout(seconds(visibility))
            .build()
            .map_err(|error| Failure::transient(error.to_string()))?;
        request = request.entries(entry);
    }
    let reply = directory.clients.request("changed no visibility", request.send()).await;
    let reply = reply.map_err(|failure| failure.at("queue", queue))?;
    let refused = reply.failed().iter().filter_map(|entry| {
        let text = entry.message().unwrap_or_default();
        let failure = Failure::from_entry(entry.code(), text, entry.sender_fault());
        Some((entry.id().parse().ok()?, failure))
    });
    Ok(refused.collect())
}
