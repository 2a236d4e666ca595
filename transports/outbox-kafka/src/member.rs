//! A member of a consumer group, on a thread of its own, for the library calls back from where it is polled.
//!
//! What is received waits here until it is asked for; answers come from anywhere. A partition that is to go is given up only
//! when what is out of it was answered for, within bounds, and its position is committed.

use crate::{
    desk::{Arrived, Awaited, Desk, Raw},
    headers::{self, Reading, Record},
    ledger::{Place, Ticket},
    tombstone,
    verdict::plain,
};
use bytes::Bytes;
use outbox_core::{
    event::Timestamp,
    runtime::{now, thread, wall_clock},
};
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
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

/// How long one look for records takes at most: how late an answer is committed where nothing else comes.
const LOOK: Duration = Duration::from_millis(50);
/// Records that are taken before the member looks after everything else.
const BURST: usize = 256;
/// How long records may wait in full number before the partitions are paused: librdkafka throws away what it has fetched ahead
/// of a pause, and fetches it again after.
const PAUSE_AFTER: Duration = Duration::from_secs(1);
/// How long the end of a membership may take.
const LEFT_WITHIN: Duration = Duration::from_secs(5);
/// How often positions are committed.
const COMMIT_EVERY: Duration = Duration::from_millis(100);

/// How a member behaves.
#[derive(Debug, Clone)]
pub(crate) struct Manners {
    pub(crate) topics: Vec<String>,
    /// Records that may wait to be asked for.
    pub(crate) prefetch: usize,
    /// How long a partition that is to go waits for answers.
    pub(crate) drain: Duration,
    pub(crate) max_payload: usize,
    pub(crate) reading: Reading,
    /// Whether records are kept as they came, for the dead letters.
    pub(crate) keeps_raw: bool,
}

/// A member, from the side of those who ask. Dropped, it leaves the group when what is out was answered for.
#[derive(Debug)]
pub(crate) struct Member(Arc<Desk>);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Member {
    /// Joins the group.
    pub(crate) fn join(config: &ClientConfig, manners: Manners) -> Result<Self, String> {
        let desk = Arc::new(Desk::new(manners.prefetch));
        let calls = Calls { desk: desk.clone(), drain: manners.drain };
        let consumer = BaseConsumer::from_config_and_context(config, calls)
            .map_err(|error| plain(&error.to_string()))?;
        let topics: Vec<&str> = manners.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|error| plain(&error.to_string()))?;
        let (mine, theirs) = (desk.clone(), Self(desk));
        thread("kafka-member", move || {
            Looking {
                consumer,
                desk: mine.clone(),
                manners,
                full_since: None,
                paused: false,
                committed_at: now(),
            }
            .run();
            mine.end();
        })
        .map_err(|error| error.to_string())?;
        Ok(theirs)
    }

    /// Waits for the next record that may be handled.
    ///
    /// # Errors
    /// What the brokers said; whether the member has ended by it.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no record.
    pub(crate) async fn next(&self) -> Result<(Ticket, Arrived), (String, bool)> {
        self.0.next().await
    }

    /// Leaves the group, and waits a while for that.
    pub(crate) async fn leave(self) {
        let desk = self.desk();
        drop(self);
        if timeout(LEFT_WITHIN, desk.ended()).await.is_err() {
            tracing::warn!(
                "the group was not left within {LEFT_WITHIN:?}; its brokers will miss this member"
            );
        }
    }

    pub(crate) fn desk(&self) -> Arc<Desk> {
        self.0.clone()
    }
}

/// What the library calls.
struct Calls {
    desk: Arc<Desk>,
    drain: Duration,
}

impl ClientContext for Calls {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, words: &str) {
        tracing::debug!(facility, "librdkafka: {words}");
    }
}

impl ConsumerContext for Calls {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                let mut state = self.desk.state();
                places(list).into_iter().for_each(|place| state.ledger.assign(place));
            }
            Rebalance::Revoke(list) => self.give_up(consumer, &places(list)),
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance failed"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "positions were not committed; they are committed again");
            self.desk.not_committed(places(offsets).iter());
        }
    }
}

impl Calls {
    /// Waits for what is out of partitions that are to go, commits their positions and forgets them. One that was lost is
    /// somebody else's already: its records are theirs.
    fn give_up(&self, consumer: &BaseConsumer<Self>, places: &[Place]) {
        let end = now() + self.drain;
        let mut state = self.desk.state();
        while !consumer.assignment_lost()
            && places.iter().map(|place| state.ledger.leave(place)).sum::<usize>() > 0
        {
            let left = end.saturating_duration_since(now());
            if left.is_zero() {
                tracing::warn!(
                    ?places,
                    "partitions go although some of their records are still at work"
                );
                break;
            }
            state = self.desk.wait(state, Awaited::Answers, left.min(LOOK));
        }
        let moved = state.ledger.moved();
        drop(state);
        if !consumer.assignment_lost() {
            commit(consumer, &self.desk, &moved, CommitMode::Sync);
        }
        let mut state = self.desk.state();
        places.iter().for_each(|place| state.ledger.revoke(place));
    }
}

fn places(list: &TopicPartitionList) -> Vec<Place> {
    list.elements()
        .iter()
        .map(|element| (Arc::from(element.topic()), element.partition()))
        .collect()
}

fn list<'p>(places: impl Iterator<Item = (&'p Place, Offset)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in places {
        if let Err(error) = list.add_partition_offset(topic, *partition, offset) {
            tracing::warn!(%error, topic = &**topic, partition, "a position is none of Kafka's");
        }
    }
    list
}

/// Commits positions; those that could not be are committed again.
fn commit(consumer: &BaseConsumer<Calls>, desk: &Desk, moved: &[(Place, i64)], mode: CommitMode) {
    if moved.is_empty() {
        return;
    }
    let positions = list(moved.iter().map(|(place, position)| (place, Offset::Offset(*position))));
    if let Err(error) = consumer.commit(&positions, mode) {
        tracing::debug!(%error, "positions were not committed; they are committed again");
        desk.not_committed(moved.iter().map(|(place, _)| place));
    }
}

/// The member's thread.
struct Looking {
    consumer: BaseConsumer<Calls>,
    desk: Arc<Desk>,
    manners: Manners,
    /// Since when as much waits as may.
    full_since: Option<Instant>,
    paused: bool,
    committed_at: Instant,
}

impl Looking {
    /// Looks for records until nobody asks any more, or the group has shut the member out. Then it leaves, by which the
    /// library takes its partitions away like at any rebalance.
    fn run(mut self) {
        loop {
            let looks = if self.has_room() { BURST } else { 0 };
            let mut look = LOOK;
            for _ in 0..looks {
                match self.consumer.poll(look) {
                    Some(Ok(record)) => self.arrived(&record),
                    Some(Err(error)) => {
                        if self.failed(&error) {
                            return;
                        }
                    }
                    None => break,
                }
                look = Duration::ZERO;
            }
            if self.desk.state().closing {
                return;
            }
            self.commit();
        }
    }

    /// Tells whether to look for records; where enough waits, gives it a moment to become less. When it has been enough for
    /// long, the partitions are paused, so that looking goes on without any: a member that does not look is put out of its
    /// group.
    fn has_room(&mut self) -> bool {
        let state = self.desk.state();
        let (is_full, is_well) = (state.is_full(), state.is_well());
        if self.paused {
            drop(state);
            // Asked again each time, for partitions that have come since are not paused.
            self.pause(!is_well);
            return true;
        }
        let since = match self.full_since {
            None if is_full => now(),
            None => return true,
            Some(_) if is_well || state.closing => {
                self.full_since = None;
                return !state.closing;
            }
            Some(since) => since,
        };
        self.full_since = Some(since);
        if now() < since + PAUSE_AFTER {
            drop(self.desk.wait(state, Awaited::Room, LOOK));
            return false;
        }
        drop(state);
        self.pause(true);
        true
    }

    fn pause(&mut self, pause: bool) {
        let ours = list(self.desk.state().ledger.places().map(|place| (place, Offset::Invalid)));
        let done = if pause { self.consumer.pause(&ours) } else { self.consumer.resume(&ours) };
        if let Err(error) = done {
            tracing::debug!(%error, "partitions were neither paused nor resumed");
        }
        self.paused = pause;
        self.full_since = None;
    }

    fn arrived(&self, record: &BorrowedMessage<'_>) {
        let place: Place = (Arc::from(record.topic()), record.partition());
        let key = record.key().map(|key| {
            let mut hasher = DefaultHasher::new();
            hasher.write(key);
            hasher.finish()
        });
        let arrived = self.read(record);
        self.desk.arrive(&place, record.offset(), key, arrived);
    }

    fn read(&self, record: &BorrowedMessage<'_>) -> Arrived {
        let value = record.payload().map(Bytes::copy_from_slice);
        let raw = self.manners.keeps_raw.then(|| Arc::new(Raw::of(record, value.clone())));
        let (topic, key, timestamp) =
            (record.topic(), record.key(), record.timestamp().to_millis());
        let record_of =
            Record { topic, key, timestamp, received_at: Timestamp::from(wall_clock()) };
        let Some(body) = value else {
            let place = (record.partition(), record.offset());
            let message =
                tombstone::read(&self.manners.reading, record_of, place, record.headers());
            return Arrived { message: Ok(message), unread: None, raw };
        };
        let limit = self.manners.max_payload;
        let message = if body.len() > limit {
            Err(format!("the message has {} bytes, of at most {limit}", body.len()))
        } else {
            headers::read(&self.manners.reading, record_of, record.headers(), body.clone())
        };
        let unread = message.is_err().then_some(body);
        Arrived { message, unread, raw }
    }

    /// Notes an error; tells whether the member is at its end by it.
    fn failed(&self, error: &KafkaError) -> bool {
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        // A connection that breaks is made again; that all are broken is worth telling.
        if !fatal
            && matches!(
                error.rdkafka_error_code(),
                None | Some(Code::BrokerTransportFailure | Code::PartitionEOF)
            )
        {
            tracing::debug!(%error, "librdkafka");
            return false;
        }
        self.desk.trouble(plain(&error.to_string()));
        fatal
    }

    fn commit(&mut self) {
        if now() < self.committed_at + COMMIT_EVERY {
            return;
        }
        self.committed_at = now();
        let moved = self.desk.state().ledger.moved();
        commit(&self.consumer, &self.desk, &moved, CommitMode::Async);
    }
}
