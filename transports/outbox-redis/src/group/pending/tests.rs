//! Order per key, leases, and counts.

use super::*;
use outbox_core::runtime::now;
use proptest::prelude::*;

const LEASE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record(u64);

impl Weight for Record {
    fn bytes(&self) -> usize {
        10
    }
}

fn id(n: u64) -> EntryId {
    EntryId::new(n, 0)
}

fn with(entries: &[(u64, Option<u64>)]) -> PendingEntries<Record> {
    let mut pending = PendingEntries::new(1, 2);
    for (n, key) in entries {
        pending.insert(0, id(*n), *key, 1, now(), Record(*n));
    }
    pending
}

fn take(pending: &mut PendingEntries<Record>) -> Option<(DeliveryTag, u64)> {
    pending.next().map(|(tag, _, record)| (tag, record.0))
}

fn take_all(pending: &mut PendingEntries<Record>) -> Vec<u64> {
    std::iter::from_fn(|| take(pending)).map(|(_, n)| n).collect()
}

#[test]
fn one_entry_of_a_key_is_in_flight_and_those_of_others_beside_it() {
    let mut pending =
        with(&[(1, Some(1)), (2, Some(1)), (3, Some(2)), (4, None), (5, None), (6, Some(2))]);
    let (first, n) = take(&mut pending).expect("ready");
    assert_eq!((n, take_all(&mut pending)), (1, vec![3, 4, 5]));
    assert!(pending.done(&first) && !pending.done(&first), "once");
    assert_eq!(take_all(&mut pending), [2]);
    assert_eq!((pending.waiting(), pending.bytes()), (1, 50));
}

#[test]
fn a_returned_entry_goes_before_every_later_one_of_its_key_and_is_counted() {
    let mut pending = with(&[(1, Some(1)), (2, Some(1))]);
    for deliveries in 1..4 {
        let (tag, counted, record) = pending.next().expect("ready");
        assert_eq!((record.0, counted), (1, deliveries));
        assert!(pending.next().is_none(), "the later one waits");
        assert!(pending.requeue(&tag) && !pending.requeue(&tag), "once");
    }
}

#[test]
fn an_entry_that_was_claimed_later_goes_before_the_later_ones_of_its_key() {
    let mut pending = with(&[(5, Some(1)), (6, Some(1))]);
    pending.insert(0, id(4), Some(1), 2, now(), Record(4));
    let (_, deliveries, record) = pending.next().expect("ready");
    assert_eq!((record.0, deliveries), (4, 2));
    assert_eq!(take_all(&mut pending), Vec::<u64>::new());
}

#[test]
fn streams_are_served_in_turn() {
    let mut pending = PendingEntries::new(3, 2);
    for n in 0..3 {
        for stream in [0, 2] {
            pending.insert(stream, id(n), None, 1, now(), Record(10 * n + stream as u64));
        }
    }
    assert_eq!(take_all(&mut pending), [2, 0, 12, 10, 22, 20]);
}

#[test]
fn an_entry_that_is_read_again_is_there_once_and_its_lease_is_renewed() {
    let (begun, later) = (now(), now() + LEASE / 2);
    let mut pending = PendingEntries::new(1, 2);
    pending.insert(0, id(1), None, 1, begun, Record(1));
    pending.insert(0, id(1), None, 2, later, Record(1));
    assert_eq!((pending.waiting(), pending.expire(begun + LEASE, LEASE)), (1, 0));
    assert_eq!((pending.expire(later + LEASE, LEASE), pending.is_empty()), (1, true));
}

#[test]
fn an_entry_whose_lease_has_ended_is_forgotten_and_its_later_ack_decision_ignored() {
    let begun = now();
    let mut pending = PendingEntries::new(1, 2);
    for n in 1..=2 {
        pending.insert(0, id(n), Some(1), 1, begun, Record(n));
    }
    let (first, _) = take(&mut pending).expect("ready");
    assert_eq!(pending.to_renew(begun + LEASE / 3, LEASE / 3), [(0, vec![id(1), id(2)])]);
    let renewed = BTreeSet::from([id(2)]);
    pending.renewed(0, &[id(1), id(2)], &renewed, begun + LEASE / 3);
    assert!(pending.contains(0, id(1)), "one in flight stays until its lease ends");
    assert_eq!(pending.expire(begun + LEASE, LEASE), 1);
    assert_eq!(take(&mut pending).map(|(_, n)| n), Some(2), "the next of its key goes on");
    // Claimed again, it is another delivery.
    pending.insert(0, id(1), Some(1), 2, begun + LEASE, Record(1));
    assert!(!pending.done(&first) && !pending.requeue(&first));
    assert!(pending.contains(0, id(1)));
}

#[test]
fn a_waiting_entry_that_is_no_longer_this_consumers_is_forgotten() {
    let mut pending = with(&[(1, Some(1)), (2, None)]);
    pending.renewed(0, &[id(1), id(2)], &BTreeSet::from([id(2)]), now());
    assert_eq!(take_all(&mut pending), [2]);
}

#[test]
fn entries_of_a_stuck_key_beyond_its_quota_leave_room_to_other_keys() {
    let mut pending = with(&[(1, Some(1)), (2, Some(1)), (3, Some(1)), (4, Some(1)), (5, Some(1))]);
    assert_eq!((pending.waiting(), pending.excess()), (5, 2));
    let (first, _) = take(&mut pending).expect("ready");
    assert_eq!((pending.waiting(), pending.excess()), (4, 2));
    assert!(pending.done(&first));
    assert_eq!((pending.waiting(), pending.excess()), (4, 1));
    pending.forget_waiting();
    assert_eq!((pending.waiting(), pending.excess(), pending.is_empty()), (0, 0, true));
}

#[derive(Debug, Clone)]
enum Act {
    Insert(u64, Option<u64>),
    Next,
    Done(usize),
    Requeue(usize),
    Expire,
    Forget,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0u64..40, proptest::option::of(0u64..3)).prop_map(|(n, key)| Act::Insert(n, key)),
        6 => Just(Act::Next),
        3 => (0usize..8).prop_map(Act::Done),
        2 => (0usize..8).prop_map(Act::Requeue),
        1 => Just(Act::Expire),
        1 => Just(Act::Forget),
    ]
}

proptest! {
    /// Whatever happens: a key is never in flight twice, nothing goes before an earlier waiting
    /// entry of its key, and the counts are those of the entries.
    #[test]
    fn order_holds_and_the_counts_are_right(acts in proptest::collection::vec(act(), 0..200)) {
        let (begun, mut at) = (now(), Duration::ZERO);
        let mut pending = PendingEntries::new(1, 2);
        let mut in_flight: Vec<(DeliveryTag, Option<u64>)> = Vec::new();
        let mut keys: BTreeMap<EntryId, Option<u64>> = BTreeMap::new();
        for act in acts {
            at += Duration::from_secs(1);
            match act {
                Act::Insert(n, key) => {
                    if !pending.contains(0, id(n)) {
                        keys.insert(id(n), key);
                    }
                    pending.insert(0, id(n), key, 1, begun + at, Record(n));
                }
                Act::Next => if let Some((tag, _, record)) = pending.next() {
                    let key = keys[&tag.id];
                    prop_assert_eq!(id(record.0), tag.id);
                    if key.is_some() {
                        prop_assert!(in_flight.iter().all(|(_, other)| *other != key));
                        let earlier = keys.range(..tag.id).filter(|(id, other)| **other == key && pending.contains(0, **id));
                        prop_assert_eq!(earlier.count(), 0);
                    }
                    in_flight.push((tag, key));
                },
                Act::Done(n) if n < in_flight.len() => prop_assert!(pending.done(&in_flight.remove(n).0)),
                Act::Requeue(n) if n < in_flight.len() => prop_assert!(pending.requeue(&in_flight.remove(n).0)),
                Act::Expire => {
                    pending.expire(begun + at, Duration::from_secs(20));
                    in_flight.retain(|(tag, _)| pending.contains(0, tag.id));
                }
                Act::Forget => pending.forget_waiting(),
                Act::Done(_) | Act::Requeue(_) => {}
            }
            let entries = &pending.streams[0].entries;
            prop_assert_eq!(pending.waiting + in_flight.len(), entries.len());
            prop_assert_eq!(pending.bytes, 10 * entries.len());
            let excess: usize = pending.streams[0].by_key.values().map(|queue| queue.excess(2)).sum();
            prop_assert_eq!(pending.excess, excess);
        }
        for (tag, _) in in_flight.drain(..) {
            prop_assert!(pending.done(&tag));
        }
        while let Some((tag, ..)) = pending.next() {
            prop_assert!(pending.done(&tag));
        }
        prop_assert!(pending.is_empty(), "every entry is delivered in the end");
    }
}
