//! Commits of positions: prompt ones, whose outcome only the library knows, and those whose outcome
//! the member waits for.

use crate::{
    handoff::{Handoff, WaitingFor},
    offsets::TopicPartition,
};
use outbox_core::runtime::now;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::KafkaResult,
    types::RDKafkaErrorCode as Code,
};
use std::time::Duration;

/// How long the member repeats a commit whose outcome it waits for: in a rebalance the whole group
/// waits with it.
const REPEAT_LIMIT: Duration = Duration::from_secs(3);
/// Pause before such a repeat.
const REPEAT_PAUSE: Duration = Duration::from_millis(50);

/// Makes the library's list of partitions.
pub(crate) fn partition_list<'p>(
    partitions: impl Iterator<Item = (&'p TopicPartition, Offset)>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in partitions {
        if let Err(error) = list.add_partition_offset(topic, *partition, offset) {
            tracing::warn!(%error, topic = &**topic, partition, "invalid offset");
        }
    }
    list
}

fn position_list(positions: &[(TopicPartition, i64)]) -> TopicPartitionList {
    partition_list(
        positions.iter().map(|(partition, position)| (partition, Offset::Offset(*position))),
    )
}

/// Commits positions without waiting for the outcome.
///
/// librdkafka reports the outcome of its own commits and not of these: a commit that the brokers
/// refuse, as they do between two generations of the group, would be lost without a word. So
/// librdkafka stores the positions too, and commits the stored ones once a second until they are
/// confirmed.
pub(crate) fn commit<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    handoff: &Handoff,
    moved: &[(TopicPartition, i64)],
) {
    if moved.is_empty() {
        return;
    }
    let positions = position_list(moved);
    let stored = consumer.store_offsets(&positions);
    let sent = consumer.commit(&positions, CommitMode::Async);
    if let Err(error) = stored.and(sent) {
        tracing::debug!(%error, "committing positions failed; retrying");
        handoff.commit_failed(moved.iter().map(|(partition, _)| partition));
    }
}

/// Commits positions and waits for the outcome. Repeats a commit for 3 s where `may_pass` says that
/// the brokers may accept it a moment later.
///
/// # Errors
/// The last refusal.
pub(crate) fn commit_and_wait<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    handoff: &Handoff,
    positions: &[(TopicPartition, i64)],
    may_pass: fn(Code) -> bool,
) -> KafkaResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    let (list, end) = (position_list(positions), now() + REPEAT_LIMIT);
    // librdkafka commits what is stored once more when partitions are taken away: an earlier position
    // would come back.
    if let Err(error) = consumer.store_offsets(&list) {
        tracing::debug!(%error, "storing positions failed");
    }
    while let Err(error) = consumer.commit(&list, CommitMode::Sync) {
        let repeats = error.rdkafka_error_code().is_some_and(may_pass);
        if !repeats || consumer.assignment_lost() || now() >= end {
            return Err(error);
        }
        drop(handoff.wait(handoff.state(), WaitingFor::Nothing, REPEAT_PAUSE));
    }
    let mut state = handoff.state();
    positions.iter().for_each(|(partition, position)| state.offsets.confirm(partition, *position));
    Ok(())
}
