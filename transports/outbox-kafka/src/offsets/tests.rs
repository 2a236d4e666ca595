//! Order, positions and revoked partitions; and any sequence of them.

use super::*;
use proptest::prelude::*;

impl Weight for i64 {
    fn bytes(&self) -> usize {
        1
    }
}

fn id(partition: i32) -> TopicPartition {
    ("orders".into(), partition)
}

fn with(partitions: i32) -> OffsetTracker<i64> {
    let mut tracker = OffsetTracker::new(2);
    (0..partitions).for_each(|partition| tracker.assign(id(partition)));
    tracker
}

fn delivered(tracker: &mut OffsetTracker<i64>) -> Vec<(DeliveryTag, i64)> {
    std::iter::from_fn(|| tracker.next()).collect()
}

fn offsets(delivered: &[(DeliveryTag, i64)]) -> Vec<i64> {
    delivered.iter().map(|(tag, _)| tag.offset).collect()
}

#[test]
fn one_record_of_a_key_is_in_flight_at_a_time_and_other_keys_beside_it() {
    let mut tracker = with(1);
    for (offset, key) in [(10, Some(1)), (11, Some(1)), (12, Some(2)), (13, None), (14, None)] {
        tracker.push(&id(0), offset, key, offset);
    }
    let out = delivered(&mut tracker);
    assert_eq!(offsets(&out), [10, 12, 13, 14]);
    assert!(tracker.done(&out[0].0));
    assert_eq!(offsets(&delivered(&mut tracker)), [11]);
}

#[test]
fn a_position_stands_before_the_first_record_that_is_not_done() {
    let mut tracker = with(1);
    // Offsets may have gaps: compacted records, or control records of a transaction.
    for offset in [5, 6, 9, 12] {
        tracker.push(&id(0), offset, None, offset);
    }
    assert_eq!(tracker.take_moved(), [], "nothing is done");
    let out = delivered(&mut tracker);
    for (nth, moved) in [(1, None), (3, None), (0, Some(7)), (2, Some(13))] {
        assert!(tracker.done(&out[nth].0));
        assert_eq!(
            tracker.take_moved(),
            moved.map(|offset| (id(0), offset)).into_iter().collect::<Vec<_>>(),
            "{nth}"
        );
        assert_eq!(tracker.take_moved(), [], "it is taken once");
    }
    tracker.commit_failed(&id(0));
    assert_eq!(tracker.take_moved(), [(id(0), 13)], "and again when it could not be committed");
    assert_eq!((tracker.tracked(), tracker.waiting(), tracker.bytes()), (0, 0, 0));
}

#[test]
fn a_position_that_was_taken_is_unconfirmed_until_the_brokers_have_it() {
    let mut tracker = with(2);
    for offset in [0, 1] {
        tracker.push(&id(0), offset, None, offset);
    }
    let both = [id(0), id(1)];
    assert_eq!(tracker.unconfirmed(&both), [], "nothing is done");
    let out = delivered(&mut tracker);
    assert!(tracker.done(&out[0].0));
    assert_eq!(tracker.take_moved(), [(id(0), 1)]);
    assert_eq!(tracker.unconfirmed(&both), [(id(0), 1)], "nobody says how that commit ended");
    assert_eq!(tracker.unconfirmed(&[id(1)]), [], "only of those that are asked for");
    tracker.confirm(&id(0), 1);
    assert_eq!(tracker.unconfirmed(&both), []);
    assert!(tracker.done(&out[1].0));
    assert_eq!(tracker.unconfirmed(&both), [(id(0), 2)], "it has moved since");
    tracker.confirm(&id(0), 2);
    tracker.assign(id(0));
    assert_eq!(tracker.unconfirmed(&both), [], "another ownership starts from scratch");
    tracker.revoke(&id(0));
    tracker.confirm(&id(0), 2);
    assert_eq!(tracker.unconfirmed(&both), [], "a partition of another member");
}

#[test]
fn a_requeued_record_is_delivered_again_before_any_later_one_of_its_key() {
    let mut tracker = with(1);
    for (offset, key) in [(0, Some(1)), (1, Some(1)), (2, Some(2))] {
        tracker.push(&id(0), offset, key, offset);
    }
    let out = delivered(&mut tracker);
    assert_eq!(offsets(&out), [0, 2]);
    assert!(tracker.requeue(&out[0].0));
    tracker.push(&id(0), 3, Some(1), 3);
    let again = delivered(&mut tracker);
    assert_eq!(offsets(&again), [0], "1 and 3 wait");
    assert!(tracker.done(&again[0].0));
    assert_eq!(offsets(&delivered(&mut tracker)), [1]);
}

#[test]
fn records_of_a_stuck_key_beyond_its_quota_leave_room_to_other_keys() {
    let mut tracker = with(2);
    for offset in 0..10 {
        tracker.push(&id(0), offset, Some(1), offset);
    }
    tracker.push(&id(1), 0, Some(1), 0);
    let out = delivered(&mut tracker);
    assert_eq!(
        (offsets(&out), tracker.waiting(), tracker.excess()),
        (vec![0, 0], 9, 7),
        "one is in flight, two count as waiting"
    );
    assert!(tracker.requeue(&out[0].0));
    assert_eq!((tracker.waiting(), tracker.excess()), (10, 7));
    let out = delivered(&mut tracker);
    assert!(tracker.done(&out[0].0));
    assert_eq!((tracker.waiting(), tracker.excess()), (9, 6), "the next one counts as waiting");
    tracker.revoke(&id(0));
    assert_eq!((tracker.waiting(), tracker.excess()), (0, 0));
}

#[test]
fn partitions_take_turns() {
    let mut tracker = with(3);
    for partition in [0, 0, 0, 2, 2, 1] {
        let offset = i64::try_from(tracker.tracked()).unwrap();
        tracker.push(&id(partition), offset, None, offset);
    }
    let turns: Vec<i32> = delivered(&mut tracker).iter().map(|(tag, _)| tag.partition.1).collect();
    assert_eq!(turns, [0, 1, 2, 0, 2, 0]);
}

#[test]
fn a_draining_partition_delivers_no_more_and_its_acks_count_until_it_is_revoked() {
    let mut tracker = with(2);
    for offset in 0..3 {
        tracker.push(&id(0), offset, None, offset);
    }
    let first = tracker.next().unwrap().0;
    let second = tracker.next().unwrap().0;
    assert_eq!(tracker.drain(&id(0)), 2);
    assert!(tracker.next().is_none());
    assert!(tracker.done(&first));
    assert_eq!((tracker.drain(&id(0)), tracker.take_moved()), (1, vec![(id(0), 1)]));
    tracker.revoke(&id(0));
    assert!(!tracker.done(&second) && !tracker.requeue(&second), "another member has it");
    tracker.push(&id(0), 3, None, 3);
    assert_eq!((tracker.tracked(), tracker.waiting(), tracker.bytes()), (0, 0, 0));
    // It starts at the position of the group; an ack from before is ignored.
    tracker.assign(id(0));
    tracker.push(&id(0), 1, None, 1);
    let again = tracker.next().unwrap().0;
    assert!(!tracker.done(&second) && tracker.done(&again));
}

#[test]
fn a_recreated_topic_starts_from_scratch() {
    let mut tracker = with(1);
    for offset in [7, 8] {
        tracker.push(&id(0), offset, Some(1), offset);
    }
    let old = tracker.next().unwrap().0;
    tracker.push(&id(0), 0, Some(1), 100);
    assert!(!tracker.done(&old), "the record is gone");
    let (tag, record) = tracker.next().unwrap();
    assert_eq!((tag.offset, record), (0, 100));
    assert!(tracker.done(&tag));
    assert_eq!(tracker.take_moved(), [(id(0), 1)]);
}

fn at(partition: i32) -> usize {
    usize::try_from(partition).unwrap()
}

fn end(log: &[Option<u64>]) -> i64 {
    i64::try_from(log.len()).unwrap()
}

#[derive(Debug, Clone)]
enum Act {
    Push(i32, Option<u64>),
    Next,
    Done(usize),
    Requeue(usize),
    Rebalance(i32),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..3, proptest::option::of(0u64..3)).prop_map(|(partition, key)| Act::Push(partition, key)),
        6 => Just(Act::Next),
        4 => (0usize..8).prop_map(Act::Done),
        2 => (0usize..8).prop_map(Act::Requeue),
        1 => (0..3).prop_map(Act::Rebalance),
    ]
}

proptest! {
    /// In any sequence one record of a key is in flight at a time and in order, no position passes
    /// a record that is not done, and after a rebalance the records from the position on are
    /// delivered again.
    #[test]
    fn order_holds_and_no_position_passes_a_record_that_is_not_done(acts in proptest::collection::vec(act(), 0..200)) {
        let mut tracker = with(3);
        // The keys of each partition, by offset.
        let mut logs: [Vec<Option<u64>>; 3] = Default::default();
        let mut positions = [0i64; 3];
        let mut done: [BTreeSet<i64>; 3] = Default::default();
        let mut out: Vec<(DeliveryTag, Option<u64>)> = Vec::new();
        for act in acts {
            match act {
                Act::Push(p, key) => {
                    let log = &mut logs[at(p)];
                    log.push(key);
                    let offset = end(log) - 1;
                    tracker.push(&id(p), offset, key, offset);
                }
                Act::Next => if let Some((tag, record)) = tracker.next() {
                    prop_assert_eq!(tag.offset, record);
                    let p = at(tag.partition.1);
                    let key = logs[p][usize::try_from(record).unwrap()];
                    if key.is_some() {
                        prop_assert!(out.iter().all(|(o, k)| o.partition != tag.partition || *k != key));
                        let earlier = (0..record).filter(|o| logs[p][usize::try_from(*o).unwrap()] == key);
                        for offset in earlier {
                            prop_assert!(offset < positions[p] || done[p].contains(&offset), "{offset} is not done");
                        }
                    }
                    out.push((tag, key));
                },
                Act::Done(i) if i < out.len() => {
                    let (tag, _) = out.remove(i);
                    prop_assert!(tracker.done(&tag));
                    done[at(tag.partition.1)].insert(tag.offset);
                }
                Act::Requeue(i) if i < out.len() => prop_assert!(tracker.requeue(&out.remove(i).0)),
                Act::Rebalance(p) => {
                    for (partition, position) in tracker.take_moved() {
                        positions[at(partition.1)] = position;
                    }
                    tracker.assign(id(p));
                    out.retain(|(tag, _)| tag.partition != id(p));
                    done[at(p)].retain(|offset| *offset < positions[at(p)]);
                    for offset in positions[at(p)]..end(&logs[at(p)]) {
                        tracker.push(&id(p), offset, logs[at(p)][usize::try_from(offset).unwrap()], offset);
                    }
                }
                Act::Done(_) | Act::Requeue(_) => {}
            }
            for (partition, position) in tracker.take_moved() {
                let p = at(partition.1);
                prop_assert!(position > positions[p], "a position never goes back");
                positions[p] = position;
                prop_assert!((0..position).all(|offset| done[p].contains(&offset)));
            }
        }
        // All is done in the end.
        let mut left = out.into_iter().map(|(tag, _)| tag).collect::<Vec<_>>();
        while let Some(tag) = left.pop().or_else(|| tracker.next().map(|(tag, _)| tag)) {
            prop_assert!(tracker.done(&tag));
        }
        prop_assert_eq!((tracker.tracked(), tracker.waiting(), tracker.bytes()), (0, 0, 0));
        for (partition, position) in tracker.take_moved() {
            positions[at(partition.1)] = position;
        }
        for (p, log) in logs.iter().enumerate() {
            prop_assert_eq!(positions[p], end(log));
        }
    }
}
