//! Order, positions, and what a partition that goes takes with it; and any sequence of all that.

use super::*;
use proptest::prelude::*;

impl Weight for i64 {
    fn bytes(&self) -> usize {
        1
    }
}

fn place(partition: i32) -> Place {
    ("orders".into(), partition)
}

fn with(partitions: i32) -> Ledger<i64> {
    let mut ledger = Ledger::new(2);
    (0..partitions).for_each(|partition| ledger.assign(place(partition)));
    ledger
}

fn given(ledger: &mut Ledger<i64>) -> Vec<(Ticket, i64)> {
    std::iter::from_fn(|| ledger.next()).collect()
}

fn offsets(given: &[(Ticket, i64)]) -> Vec<i64> {
    given.iter().map(|(ticket, _)| ticket.offset).collect()
}

#[test]
fn of_a_key_one_is_out_at_a_time_and_the_others_go_beside_it() {
    let mut ledger = with(1);
    for (offset, key) in [(10, Some(1)), (11, Some(1)), (12, Some(2)), (13, None), (14, None)] {
        ledger.arrive(&place(0), offset, key, offset);
    }
    let out = given(&mut ledger);
    assert_eq!(offsets(&out), [10, 12, 13, 14]);
    assert!(ledger.done(&out[0].0));
    assert_eq!(offsets(&given(&mut ledger)), [11]);
}

#[test]
fn a_position_stands_before_the_first_record_that_is_not_done() {
    let mut ledger = with(1);
    // Offsets may have gaps: what a topic has compacted away, or a producer's marks.
    for offset in [5, 6, 9, 12] {
        ledger.arrive(&place(0), offset, None, offset);
    }
    assert_eq!(ledger.moved(), [], "nothing is done");
    let out = given(&mut ledger);
    for (nth, moved) in [(1, None), (3, None), (0, Some(7)), (2, Some(13))] {
        assert!(ledger.done(&out[nth].0));
        assert_eq!(
            ledger.moved(),
            moved.map(|offset| (place(0), offset)).into_iter().collect::<Vec<_>>(),
            "{nth}"
        );
        assert_eq!(ledger.moved(), [], "it is told once");
    }
    ledger.not_committed(&place(0));
    assert_eq!(ledger.moved(), [(place(0), 13)], "and again when it could not be committed");
    assert_eq!((ledger.held(), ledger.waiting(), ledger.bytes()), (0, 0, 0));
}

#[test]
fn what_comes_back_goes_again_before_anything_later_of_its_key() {
    let mut ledger = with(1);
    for (offset, key) in [(0, Some(1)), (1, Some(1)), (2, Some(2))] {
        ledger.arrive(&place(0), offset, key, offset);
    }
    let out = given(&mut ledger);
    assert_eq!(offsets(&out), [0, 2]);
    assert!(ledger.back(&out[0].0));
    ledger.arrive(&place(0), 3, Some(1), 3);
    let again = given(&mut ledger);
    assert_eq!(offsets(&again), [0], "1 and 3 wait");
    assert!(ledger.done(&again[0].0));
    assert_eq!(offsets(&given(&mut ledger)), [1]);
}

#[test]
fn what_waits_of_a_key_beyond_its_places_takes_none_of_the_others() {
    let mut ledger = with(2);
    for offset in 0..10 {
        ledger.arrive(&place(0), offset, Some(1), offset);
    }
    ledger.arrive(&place(1), 0, Some(1), 0);
    let out = given(&mut ledger);
    assert_eq!(
        (offsets(&out), ledger.waiting(), ledger.beyond()),
        (vec![0, 0], 9, 7),
        "one is out, two have a place"
    );
    assert!(ledger.back(&out[0].0));
    assert_eq!((ledger.waiting(), ledger.beyond()), (10, 7));
    let out = given(&mut ledger);
    assert!(ledger.done(&out[0].0));
    assert_eq!((ledger.waiting(), ledger.beyond()), (9, 6), "the next has its place");
    ledger.revoke(&place(0));
    assert_eq!((ledger.waiting(), ledger.beyond()), (0, 0));
}

#[test]
fn partitions_take_turns() {
    let mut ledger = with(3);
    for partition in [0, 0, 0, 2, 2, 1] {
        let offset = i64::try_from(ledger.held()).unwrap();
        ledger.arrive(&place(partition), offset, None, offset);
    }
    let turns: Vec<i32> = given(&mut ledger).iter().map(|(ticket, _)| ticket.place.1).collect();
    assert_eq!(turns, [0, 1, 2, 0, 2, 0]);
}

#[test]
fn a_partition_that_leaves_gives_nothing_more_and_its_answers_count_until_it_is_gone() {
    let mut ledger = with(2);
    for offset in 0..3 {
        ledger.arrive(&place(0), offset, None, offset);
    }
    let first = ledger.next().unwrap().0;
    let second = ledger.next().unwrap().0;
    assert_eq!(ledger.leave(&place(0)), 2);
    assert!(ledger.next().is_none());
    assert!(ledger.done(&first));
    assert_eq!((ledger.leave(&place(0)), ledger.moved()), (1, vec![(place(0), 1)]));
    ledger.revoke(&place(0));
    assert!(!ledger.done(&second) && !ledger.back(&second), "somebody else has it");
    ledger.arrive(&place(0), 3, None, 3);
    assert_eq!((ledger.held(), ledger.waiting(), ledger.bytes()), (0, 0, 0));
    // It comes back from where the group stands; an answer of before is not meant.
    ledger.assign(place(0));
    ledger.arrive(&place(0), 1, None, 1);
    let again = ledger.next().unwrap().0;
    assert!(!ledger.done(&second) && ledger.done(&again));
}

#[test]
fn a_topic_that_was_made_anew_begins_anew() {
    let mut ledger = with(1);
    for offset in [7, 8] {
        ledger.arrive(&place(0), offset, Some(1), offset);
    }
    let old = ledger.next().unwrap().0;
    ledger.arrive(&place(0), 0, Some(1), 100);
    assert!(!ledger.done(&old), "there is no such record any more");
    let (ticket, record) = ledger.next().unwrap();
    assert_eq!((ticket.offset, record), (0, 100));
    assert!(ledger.done(&ticket));
    assert_eq!(ledger.moved(), [(place(0), 1)]);
}

fn at(partition: i32) -> usize {
    usize::try_from(partition).unwrap()
}

fn end(log: &[Option<u64>]) -> i64 {
    i64::try_from(log.len()).unwrap()
}

#[derive(Debug, Clone)]
enum Act {
    Arrive(i32, Option<u64>),
    Next,
    Done(usize),
    Back(usize),
    Rebalance(i32),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..3, proptest::option::of(0u64..3)).prop_map(|(partition, key)| Act::Arrive(partition, key)),
        6 => Just(Act::Next),
        4 => (0usize..8).prop_map(Act::Done),
        2 => (0usize..8).prop_map(Act::Back),
        1 => (0..3).prop_map(Act::Rebalance),
    ]
}

proptest! {
    /// Whatever happens: of a key one is out at a time and in order, no position passes a record that is not done, and after a
    /// rebalance everything from the position on is there again.
    #[test]
    fn order_holds_and_no_position_passes_what_is_not_done(acts in proptest::collection::vec(act(), 0..200)) {
        let mut ledger = with(3);
        // What each topic has: the key of each offset.
        let mut logs: [Vec<Option<u64>>; 3] = Default::default();
        let mut positions = [0i64; 3];
        let mut done: [BTreeSet<i64>; 3] = Default::default();
        let mut out: Vec<(Ticket, Option<u64>)> = Vec::new();
        for act in acts {
            match act {
                Act::Arrive(p, key) => {
                    let log = &mut logs[at(p)];
                    log.push(key);
                    let offset = end(log) - 1;
                    ledger.arrive(&place(p), offset, key, offset);
                }
                Act::Next => if let Some((ticket, record)) = ledger.next() {
                    prop_assert_eq!(ticket.offset, record);
                    let p = at(ticket.place.1);
                    let key = logs[p][usize::try_from(record).unwrap()];
                    if key.is_some() {
                        prop_assert!(out.iter().all(|(o, k)| o.place != ticket.place || *k != key));
                        let earlier = (0..record).filter(|o| logs[p][usize::try_from(*o).unwrap()] == key);
                        for offset in earlier {
                            prop_assert!(offset < positions[p] || done[p].contains(&offset), "{offset} is not done");
                        }
                    }
                    out.push((ticket, key));
                },
                Act::Done(i) if i < out.len() => {
                    let (ticket, _) = out.remove(i);
                    prop_assert!(ledger.done(&ticket));
                    done[at(ticket.place.1)].insert(ticket.offset);
                }
                Act::Back(i) if i < out.len() => prop_assert!(ledger.back(&out.remove(i).0)),
                Act::Rebalance(p) => {
                    for (place, position) in ledger.moved() {
                        positions[at(place.1)] = position;
                    }
                    ledger.assign(place(p));
                    out.retain(|(ticket, _)| ticket.place != place(p));
                    done[at(p)].retain(|offset| *offset < positions[at(p)]);
                    for offset in positions[at(p)]..end(&logs[at(p)]) {
                        ledger.arrive(&place(p), offset, logs[at(p)][usize::try_from(offset).unwrap()], offset);
                    }
                }
                Act::Done(_) | Act::Back(_) => {}
            }
            for (place, position) in ledger.moved() {
                let p = at(place.1);
                prop_assert!(position > positions[p], "a position never goes back");
                positions[p] = position;
                prop_assert!((0..position).all(|offset| done[p].contains(&offset)));
            }
        }
        // All is done in the end.
        let mut left = out.into_iter().map(|(ticket, _)| ticket).collect::<Vec<_>>();
        while let Some(ticket) = left.pop().or_else(|| ledger.next().map(|(ticket, _)| ticket)) {
            prop_assert!(ledger.done(&ticket));
        }
        prop_assert_eq!((ledger.held(), ledger.waiting(), ledger.bytes()), (0, 0, 0));
        for (place, position) in ledger.moved() {
            positions[at(place.1)] = position;
        }
        for (p, log) in logs.iter().enumerate() {
            prop_assert_eq!(positions[p], end(log));
        }
    }
}
