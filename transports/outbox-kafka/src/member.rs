//! A member of a consumer group, on a thread of its own, because the library calls back on the
//! thread that polls it.
//!
//! Received records wait here for a caller; ack decisions come from any thread. The member releases
//! a partition in a rebalance after the ack decisions of its in-flight records, or after a time
//! limit, and after the commit of its position.

use crate::{
    classify::commit_may_pass,
    commits::{commit, commit_and_wait, partition_list},
    handoff::{Handoff, RawRecord, Received, WaitingFor},
    headers::{self, ReadOptions, Record},
    offsets::{DeliveryTag, TopicPartition},
    tombstone,
};
use bytes::Bytes;
use outbox_core::{
    event::Timestamp,
    runtime::{now, thread, wall_clock},
    transport::one_line,
};
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
    types::RDKafkaErrorCode as Code,
};
use std::{
    collections::hash_map::DefaultHasher,
    hash::Hasher,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// Longest time of one poll: how late the member commits a position where no record comes.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// Most records that the member polls before it commits and checks whether to close.
const BURST: usize = 256;
/// How long the handoff may stay full before the member pauses the partitions: librdkafka drops
/// prefetched records at a pause and fetches them again afterwards.
const PAUSE_AFTER: Duration = Duration::from_secs(1);
/// How long leaving the group may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the member commits positions.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

/// The configuration of a member.
#[derive(Debug, Clone)]
pub(crate) struct MemberConfig {
    pub(crate) topics: Vec<String>,
    /// Records that may wait for a caller.
    pub(crate) prefetch: usize,
    /// How long a partition that is revoked waits for ack decisions.
    pub(crate) drain: Duration,
    pub(crate) max_payload: usize,
    pub(crate) read_options: ReadOptions,
    /// Whether the member keeps records as they came, for the dead-letter topic.
    pub(crate) keeps_raw: bool,
}

/// The callers' handle of a member. When it is dropped, the member leaves the group after the ack
/// decisions of its in-flight records.
#[derive(Debug)]
pub(crate) struct Member(Arc<Handoff>);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Member {
    /// Joins the group.
    pub(crate) fn join(config: &ClientConfig, member: MemberConfig) -> Result<Self, String> {
        let handoff = Arc::new(Handoff::new(member.prefetch));
        let callbacks = ConsumerCallbacks { handoff: handoff.clone(), drain: member.drain };
        let consumer = BaseConsumer::from_config_and_context(config, callbacks)
            .map_err(|error| one_line(&error.to_string()))?;
        let topics: Vec<&str> = member.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|error| one_line(&error.to_string()))?;
        let (thread_side, caller_side) = (handoff.clone(), Self(handoff));
        thread("kafka-member", move || {
            PollLoop {
                consumer,
                handoff: thread_side.clone(),
                config: member,
                full_since: None,
                paused: false,
                committed_at: now(),
            }
            .run();
            thread_side.end();
        })
        .map_err(|error| error.to_string())?;
        Ok(caller_side)
    }

    /// Waits for the next record that may be handled.
    ///
    /// # Errors
    /// The error of the brokers, and whether it has ended the member.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no record.
    pub(crate) async fn next(&self) -> Result<(DeliveryTag, Received), (String, bool)> {
        self.0.next().await
    }

    /// Leaves the group, and waits until that is done, within a limit.
    pub(crate) async fn leave_group(self) {
        let handoff = self.handoff();
        drop(self);
        if timeout(LEAVE_TIMEOUT, handoff.ended()).await.is_err() {
            tracing::warn!(
                "leaving the group took longer than {LEAVE_TIMEOUT:?}; the brokers will notice by session timeout"
            );
        }
    }

    pub(crate) fn handoff(&self) -> Arc<Handoff> {
        self.0.clone()
    }
}

/// The callbacks of the library, on the member's thread.
struct ConsumerCallbacks {
    handoff: Arc<Handoff>,
    drain: Duration,
}

impl ClientContext for ConsumerCallbacks {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(facility, "librdkafka: {text}");
    }
}

impl ConsumerContext for ConsumerCallbacks {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                let mut state = self.handoff.state();
                partitions_of(list)
                    .into_iter()
                    .for_each(|partition| state.offsets.assign(partition));
            }
            Rebalance::Revoke(list) => self.release(consumer, &partitions_of(list)),
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance failed"),
        }
    }

    /// The outcome of one of the library's own commits.
    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "committing positions failed; retrying");
            self.handoff.commit_failed(partitions_of(offsets).iter());
        }
    }
}

impl ConsumerCallbacks {
    /// Waits for the in-flight records of revoked partitions, commits the positions and forgets the
    /// partitions. A lost partition belongs to another member already, which receives its records.
    fn release(&self, consumer: &BaseConsumer<Self>, partitions: &[TopicPartition]) {
        let end = now() + self.drain;
        let mut state = self.handoff.state();
        while !consumer.assignment_lost()
            && partitions.iter().map(|id| state.offsets.drain(id)).sum::<usize>() > 0
        {
            let left = end.saturating_duration_since(now());
            if left.is_zero() {
                tracing::warn!(?partitions, "partitions revoked with records in flight");
                break;
            }
            state = self.handoff.wait(state, WaitingFor::Decision, left.min(POLL_TIMEOUT));
        }
        // Also those that were taken before: a commit under way may be refused, and nobody would
        // repeat it. Forgotten under the same lock: an ack decision fails rather than count and
        // never be committed.
        let positions = state.offsets.unconfirmed(partitions);
        partitions.iter().for_each(|partition| state.offsets.revoke(partition));
        drop(state);
        if consumer.assignment_lost() {
            return;
        }
        let committed = commit_and_wait(consumer, &self.handoff, &positions, commit_may_pass);
        if let Err(error) = committed {
            tracing::warn!(
                %error,
                ?positions,
                "the last positions of revoked partitions were not committed; records are delivered again"
            );
        }
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .map(|element| (Arc::from(element.topic()), element.partition()))
        .collect()
}

/// The loop of the member's thread.
struct PollLoop {
    consumer: BaseConsumer<ConsumerCallbacks>,
    handoff: Arc<Handoff>,
    config: MemberConfig,
    /// Since when the handoff has been full.
    full_since: Option<Instant>,
    paused: bool,
    committed_at: Instant,
}

impl PollLoop {
    /// Polls for records until the handoff is closed or a fatal error ends the member. Dropping the
    /// consumer then leaves the group, and the library revokes its partitions as in any rebalance.
    fn run(mut self) {
        loop {
            let polls = if self.may_poll() { BURST } else { 0 };
            let mut poll_timeout = POLL_TIMEOUT;
            for _ in 0..polls {
                match self.consumer.poll(poll_timeout) {
                    Some(Ok(record)) => self.on_record(&record),
                    Some(Err(error)) => {
                        if self.on_error(&error) {
                            return;
                        }
                    }
                    None => break,
                }
                poll_timeout = Duration::ZERO;
            }
            if self.handoff.state().closing {
                self.settle();
                return;
            }
            self.commit();
        }
    }

    /// Commits what is done before the member leaves. In a rebalance the brokers accept a commit of
    /// the next generation only, and the library learns of no generation any more once it leaves.
    fn settle(&self) {
        let state = self.handoff.state();
        let positions = state.offsets.unconfirmed(state.offsets.partitions());
        drop(state);
        let may_pass = |code| code == Code::IllegalGeneration || commit_may_pass(code);
        if let Err(error) = commit_and_wait(&self.consumer, &self.handoff, &positions, may_pass) {
            tracing::debug!(%error, "committing positions failed; retrying");
        }
    }

    /// Tells whether to poll. While the handoff is full, waits a moment for room; when it has been
    /// full for long, pauses the partitions and polls on without receiving records, because the
    /// brokers remove a member that does not poll from its group.
    fn may_poll(&mut self) -> bool {
        let state = self.handoff.state();
        let (is_full, is_half_empty) = (state.is_full(), state.is_half_empty());
        if self.paused {
            drop(state);
            // Each time anew, because partitions that were assigned since are not paused.
            self.pause(!is_half_empty);
            return true;
        }
        let since = match self.full_since {
            None if is_full => now(),
            None => return true,
            Some(_) if is_half_empty || state.closing => {
                self.full_since = None;
                return !state.closing;
            }
            Some(since) => since,
        };
        self.full_since = Some(since);
        if now() < since + PAUSE_AFTER {
            drop(self.handoff.wait(state, WaitingFor::Room, POLL_TIMEOUT));
            return false;
        }
        drop(state);
        self.pause(true);
        true
    }

    fn pause(&mut self, pause: bool) {
        let owned = partition_list(
            self.handoff.state().offsets.partitions().map(|partition| (partition, Offset::Invalid)),
        );
        let result = if pause { self.consumer.pause(&owned) } else { self.consumer.resume(&owned) };
        if let Err(error) = result {
            tracing::debug!(%error, "pausing or resuming partitions failed");
        }
        self.paused = pause;
        self.full_since = None;
    }

    fn on_record(&self, record: &BorrowedMessage<'_>) {
        let partition: TopicPartition = (Arc::from(record.topic()), record.partition());
        let key = record.key().map(|key| {
            let mut hasher = DefaultHasher::new();
            hasher.write(key);
            hasher.finish()
        });
        let received = self.read(record);
        self.handoff.push(&partition, record.offset(), key, received);
    }

    fn read(&self, record: &BorrowedMessage<'_>) -> Received {
        let value = record.payload().map(Bytes::copy_from_slice);
        let raw = self.config.keeps_raw.then(|| Arc::new(RawRecord::of(record, value.clone())));
        let (topic, key, timestamp) =
            (record.topic(), record.key(), record.timestamp().to_millis());
        let record_of =
            Record { topic, key, timestamp, received_at: Timestamp::from(wall_clock()) };
        let Some(body) = value else {
            let position = (record.partition(), record.offset());
            let options = &self.config.read_options;
            let message = tombstone::read(options, record_of, position, record.headers());
            return Received { message: Ok(message), unread: None, raw };
        };
        let limit = self.config.max_payload;
        let message = if body.len() > limit {
            Err(format!("the message has {} bytes, of at most {limit}", body.len()))
        } else {
            headers::read(&self.config.read_options, record_of, record.headers(), body.clone())
        };
        let unread = message.is_err().then_some(body);
        Received { message, unread, raw }
    }

    /// Reports an error; tells whether it has ended the member.
    fn on_error(&self, error: &KafkaError) -> bool {
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        // The library reconnects after a lost connection; the loss of all of them is a reported
        // error.
        if !fatal
            && matches!(
                error.rdkafka_error_code(),
                None | Some(Code::BrokerTransportFailure | Code::PartitionEOF)
            )
        {
            tracing::debug!(%error, "librdkafka");
            return false;
        }
        self.handoff.report_error(one_line(&error.to_string()));
        fatal
    }

    fn commit(&mut self) {
        if now() < self.committed_at + COMMIT_INTERVAL {
            return;
        }
        self.committed_at = now();
        let moved = self.handoff.state().offsets.take_moved();
        commit(&self.consumer, &self.handoff, &moved);
    }
}
