//! One connection for publishing with a pool of channels in confirm mode, one for each batch.
//!
//! The server returns an unroutable message before it acknowledges it, but not right before, and
//! the client library attaches a returned message to the next confirm on the channel, whichever it
//! is. So each batch has a channel for itself, waits for all of its confirms, and then finds its
//! returned messages by their ids.

mod written;

use crate::{
    classify::{Failure, LEADER_ELECTION_BACKOFF},
    connection::{AmqpConnection, Connector, quiet},
    headers::EncodedMessage,
    topology::Topology,
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapin::{
    Channel, Confirmation,
    message::BasicReturnMessage,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use outbox_core::{event::MessageId, runtime::now};
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};
use written::Written;

/// Most abandoned channels, whose batch did not end: they stay open so that the library writes
/// nothing to a closed channel. With more, something is wrong with the connection, and the pool
/// closes it.
const MAX_ABANDONED: usize = 64;

/// How long a declared queue may lack a leader: longer than a server with busy cores needs to elect
/// one.
const LEADER_ELECTION_TIME: Duration = Duration::from_secs(10);

/// An encoded message with its exchange and routing key.
pub(crate) struct Outgoing {
    pub(crate) id: MessageId,
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) encoded: EncodedMessage,
}

/// A connection to one server with its channels.
pub(crate) struct ChannelPool {
    connector: Connector,
    topology: Topology,
    permits: Arc<Semaphore>,
    /// How often connecting has failed: callers that waited for one attempt share its failure.
    failures: AtomicU64,
    slot: tokio::sync::Mutex<ConnectionSlot>,
}

#[derive(Default)]
struct ConnectionSlot {
    open: Option<Arc<OpenConnection>>,
    failure: Option<Failure>,
}

/// An open connection with its channels.
struct OpenConnection {
    connection: AmqpConnection,
    /// Whether the topology was declared and no error has said that a part of it is missing.
    declared: AtomicBool,
    /// When queues were last declared, if there are any.
    declared_at: Mutex<Option<Instant>>,
    /// Channels for the next batches, with their last delivery tags.
    idle: Mutex<Vec<(Channel, u64)>>,
    abandoned: Mutex<Vec<Channel>>,
}

/// A channel in confirm mode that one batch has for itself. One that is dropped before all its
/// confirms came is never used again.
pub(crate) struct ConfirmChannel {
    open: Arc<OpenConnection>,
    channel: Channel,
    /// The delivery tag of the last message; the server counts the same way.
    tag: AtomicU64,
    /// Whether all confirms of the batch came.
    finished: bool,
    _permit: OwnedSemaphorePermit,
}

impl ChannelPool {
    pub(crate) fn new(connector: Connector, topology: Topology, channels: usize) -> Self {
        let permits = Arc::new(Semaphore::new(channels));
        Self {
            connector,
            topology,
            permits,
            failures: AtomicU64::new(0),
            slot: tokio::sync::Mutex::default(),
        }
    }

    /// Acquires a channel. Waits while other batches have them all; their own deadlines end them.
    pub(crate) async fn acquire(&self) -> Result<ConfirmChannel, Failure> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Failure::unavailable("the publisher is closed"))?;
        let open = self.connected().await?;
        if let Some(reason) = open.connection.blocked() {
            return Err(Failure::blocked(&reason));
        }
        let idle = locked(&open.idle).pop();
        let (channel, tag) = match idle {
            Some(idle) => idle,
            None => (open.confirm_channel().await.map_err(Failure::of_connecting)?, 0),
        };
        let tag = AtomicU64::new(tag);
        Ok(ConfirmChannel { open, channel, tag, finished: false, _permit: permit })
    }

    /// Gives the connection; connects and declares the topology where that is not done.
    ///
    /// # Cancel safety
    /// The next caller that gets the lock continues where a dropped call stopped.
    async fn connected(&self) -> Result<Arc<OpenConnection>, Failure> {
        let seen = self.failures.load(Ordering::Acquire);
        let mut slot = self.slot.lock().await;
        if let Some(failure) = &slot.failure
            && self.failures.load(Ordering::Acquire) != seen
        {
            return Err(failure.clone());
        }
        let mut opened = self.open(slot.open.clone()).await;
        for wait in LEADER_ELECTION_BACKOFF {
            if opened.as_ref().is_err_and(|failure| failure.internal_error) {
                sleep(wait).await;
                opened = self.open(None).await;
            }
        }
        match opened {
            Ok(open) => {
                *slot = ConnectionSlot { open: Some(open.clone()), failure: None };
                Ok(open)
            }
            Err(failure) => {
                let failure = failure.of_connecting();
                slot.failure = Some(failure.clone());
                self.failures.fetch_add(1, Ordering::AcqRel);
                Err(failure)
            }
        }
    }

    async fn open(
        &self,
        open: Option<Arc<OpenConnection>>,
    ) -> Result<Arc<OpenConnection>, Failure> {
        let open = match open.filter(|open| open.connection.is_usable()) {
            Some(open) => open,
            None => OpenConnection::new(self.connector.connect().await?),
        };
        self.declare(open).await
    }

    async fn declare(&self, open: Arc<OpenConnection>) -> Result<Arc<OpenConnection>, Failure> {
        if !open.declared.load(Ordering::Acquire) {
            self.topology.declare(&open.connection).await?;
            *locked(&open.declared_at) = self.topology.has_queues().then(|| now().into());
            open.declared.store(true, Ordering::Release);
        }
        Ok(open)
    }

    /// Connects, where that is not done.
    pub(crate) async fn connect(&self) -> Result<(), Failure> {
        self.connected().await.map(|_| ())
    }

    /// Gives the deadline for the confirms of a batch that starts now.
    fn deadline(&self) -> Instant {
        (now() + self.connector.timeout).into()
    }

    /// Publishes a batch and gives the delivery tag or the failure of each message. `encode`
    /// encodes one of them once more, by its index.
    ///
    /// Two failures do not show in the first outcome. When the server closes the channel because of
    /// one message, its neighbours fail too; each alone shows which one it was. And a quorum queue
    /// accepts nothing until it has a leader: where queues were just declared and the channel is
    /// unused, nacked messages are published again for a moment. (On a used channel a basic.nack
    /// means that a queue is full or failed.) On an at-most-once route (`once`) no message is
    /// published again.
    pub(crate) async fn publish_batch(
        &self,
        channel: ConfirmChannel,
        batch: Vec<Outgoing>,
        once: bool,
        encode: impl Fn(usize) -> Result<Outgoing, Failure>,
    ) -> Vec<Result<u64, Failure>> {
        let deadline = self.deadline();
        let may_lack_leader = channel.is_unused() && channel.open.declared_recently();
        let mut outcomes = channel.publish_batch(batch, deadline, self.connector.timeout).await;
        if once {
            // A nacked message may have reached another queue.
            return outcomes;
        }
        if outcomes.len() > 1 {
            for index in failed_indexes(&outcomes, |failure| failure.single_message) {
                outcomes[index] = self.publish_again(index, &encode, self.deadline()).await;
            }
        }
        for wait in LEADER_ELECTION_BACKOFF.into_iter().filter(|_| may_lack_leader) {
            let nacked = failed_indexes(&outcomes, |failure| failure.nacked);
            if nacked.is_empty() || deadline.saturating_duration_since(now().into()) < wait {
                break;
            }
            sleep(wait).await;
            for index in nacked {
                outcomes[index] = self.publish_again(index, &encode, deadline).await;
                if outcomes[index].as_ref().is_err_and(|failure| failure.nacked) {
                    // There is still no leader; the others would be nacked too.
                    break;
                }
            }
        }
        outcomes
    }

    async fn publish_again(
        &self,
        index: usize,
        encode: &impl Fn(usize) -> Result<Outgoing, Failure>,
        deadline: Instant,
    ) -> Result<u64, Failure> {
        let (message, channel) = (encode(index)?, self.acquire().await?);
        let outcomes = channel.publish_batch(vec![message], deadline, self.connector.timeout).await;
        outcomes.into_iter().next().unwrap_or_else(|| Err(Failure::transient("no outcome")))
    }
}

/// Lists the indexes of the failures that a predicate selects.
fn failed_indexes(outcomes: &[Result<u64, Failure>], is: impl Fn(&Failure) -> bool) -> Vec<usize> {
    let failed = |outcome: &Result<u64, Failure>| outcome.as_ref().is_err_and(&is);
    outcomes
        .iter()
        .enumerate()
        .filter(|(_, outcome)| failed(outcome))
        .map(|(index, _)| index)
        .collect()
}

impl OpenConnection {
    fn new(connection: AmqpConnection) -> Arc<Self> {
        Arc::new(Self {
            connection,
            declared: AtomicBool::new(false),
            declared_at: Mutex::default(),
            idle: Mutex::default(),
            abandoned: Mutex::default(),
        })
    }

    /// Tells whether a queue may be so new that it has no leader yet.
    fn declared_recently(&self) -> bool {
        locked(&self.declared_at).is_some_and(|at| Instant::from(now()) < at + LEADER_ELECTION_TIME)
    }

    async fn confirm_channel(&self) -> Result<Channel, Failure> {
        let channel = self.connection.channel().await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        self.connection.request("confirms nothing", confirms).await?;
        Ok(channel)
    }

    fn abandon(&self, channel: Channel) {
        let mut abandoned = locked(&self.abandoned);
        abandoned.push(channel);
        if abandoned.len() > MAX_ABANDONED {
            self.connection.close_now();
        }
    }
}

impl ConfirmChannel {
    /// Tells whether no message was published on it yet.
    fn is_unused(&self) -> bool {
        self.tag.load(Ordering::Relaxed) == 0
    }

    /// Gives the largest frame that both sides take.
    pub(crate) fn frame_max(&self) -> usize {
        usize::try_from(self.open.connection.frame_max()).unwrap_or(usize::MAX)
    }

    /// Publishes the messages, waits for their confirms up to the deadline and until nothing was
    /// written for the time of one reply, and then sorts out which were returned.
    async fn publish_batch(
        mut self,
        batch: Vec<Outgoing>,
        mut deadline: Instant,
        within: Duration,
    ) -> Vec<Result<u64, Failure>> {
        let written = Written::default();
        let ids: Vec<MessageId> = batch.iter().map(|message| message.id).collect();
        let mut confirms: Vec<Option<(u64, lapin::Result<Confirmation>)>> =
            batch.iter().map(|_| None).collect();
        {
            let publish = async |index: usize, message: Outgoing| {
                let tag = self.tag.fetch_add(1, Ordering::Relaxed) + 1;
                let confirm = self.publish(message, &written).await;
                (index, tag, confirm)
            };
            let mut in_flight: FuturesUnordered<_> = batch
                .into_iter()
                .enumerate()
                .map(|(index, message)| quiet(publish(index, message)).fuse())
                .collect();
            loop {
                match timeout_at(deadline, in_flight.next()).await {
                    Ok(Some((index, tag, confirm))) => confirms[index] = Some((tag, confirm)),
                    Ok(None) => break,
                    Err(_) => match written.later_than(deadline, within) {
                        Some(later) => deadline = later,
                        None => break,
                    },
                }
            }
            // Every confirm that came by the deadline counts: one that is not polled yet may carry
            // the return of a message whose own confirm was polled. It came before that one, so a
            // pass that finds no new confirm has missed none.
            loop {
                let before = confirms.iter().flatten().count();
                for pending in Pin::new(&mut in_flight).iter_pin_mut() {
                    if let Some((index, tag, confirm)) = pending.now_or_never() {
                        confirms[index] = Some((tag, confirm));
                    }
                }
                if confirms.iter().flatten().count() == before {
                    break;
                }
            }
        }
        self.finished = confirms.iter().all(|confirm| matches!(confirm, Some((_, Ok(_)))));
        self.outcomes(&ids, confirms, written.messages())
    }

    async fn publish(&self, message: Outgoing, written: &Written) -> lapin::Result<Confirmation> {
        let Outgoing { exchange, routing_key, encoded, .. } = message;
        let mandatory = BasicPublishOptions { mandatory: true, ..Default::default() };
        let publish = self.channel.basic_publish(
            exchange,
            routing_key,
            mandatory,
            &encoded.body,
            encoded.properties,
        );
        let confirm = publish.await?;
        written.add(now().into());
        confirm.await
    }

    fn outcomes(
        &self,
        ids: &[MessageId],
        confirms: Vec<Option<(u64, lapin::Result<Confirmation>)>>,
        written: usize,
    ) -> Vec<Result<u64, Failure>> {
        let timed_out =
            confirms.iter().any(Option::is_none).then(|| self.timed_out(ids.len(), written));
        let (mut returned, mut outcomes) = (HashMap::new(), Vec::with_capacity(ids.len()));
        for confirm in confirms {
            outcomes.push(match confirm {
                Some((tag, Ok(Confirmation::Ack(message)))) => {
                    returned.extend(message.and_then(returned_message));
                    Ok(tag)
                }
                Some((_, Ok(Confirmation::Nack(message)))) => {
                    returned.extend(message.and_then(returned_message));
                    Err(Failure::nacked())
                }
                Some((_, Ok(Confirmation::NotRequested))) => {
                    Err(Failure::unavailable("the channel is not in confirm mode"))
                }
                Some((_, Err(error))) => {
                    let failure = Failure::from_lapin(&error);
                    if failure.not_found {
                        self.open.declared.store(false, Ordering::Release);
                    }
                    Err(failure)
                }
                None => Err(timed_out.clone().unwrap_or_else(|| Failure::transient("no outcome"))),
            });
        }
        for (id, outcome) in ids.iter().zip(&mut outcomes) {
            if let Some(failure) = returned.get(id) {
                *outcome = Err(failure.clone());
            }
        }
        outcomes
    }

    /// Makes the failure of messages without a confirm at the deadline.
    fn timed_out(&self, sent: usize, written: usize) -> Failure {
        if let Some(reason) = self.open.connection.blocked() {
            return Failure::blocked(&reason);
        }
        if written < sent {
            // The library would write the rest later, to a channel that no batch listens to.
            self.open.connection.close_now();
            return Failure::unavailable("the server takes no messages");
        }
        Failure::transient("the server did not confirm in time")
    }
}

fn returned_message(returned: BasicReturnMessage) -> Option<(MessageId, Failure)> {
    let failure = Failure::returned(
        returned.reply_code,
        returned.reply_text.as_str(),
        returned.exchange.as_str(),
        returned.routing_key.as_str(),
    );
    Some((returned.properties.message_id().as_ref()?.as_str().parse().ok()?, failure))
}

impl Drop for ConfirmChannel {
    fn drop(&mut self) {
        if !self.channel.status().connected() {
            return;
        }
        let (channel, tag) = (self.channel.clone(), self.tag.load(Ordering::Relaxed));
        if self.finished {
            locked(&self.open.idle).push((channel, tag));
        } else {
            self.open.abandon(channel);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
