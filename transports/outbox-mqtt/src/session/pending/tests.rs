use super::*;
use std::time::Duration;

fn arrival(id: u16, key: u64) -> Arrival<u16> {
    Arrival {
        id: Some(id),
        message: Some(message(id)),
        key: Some(key),
        size: 10,
        is_repeat: false,
        record: id,
    }
}

fn message(id: u16) -> MessageId {
    format!("00000000-0000-7000-8000-00000000{id:04x}").parse().expect("an id")
}

fn pending(in_order: bool, arrivals: &[(u16, u64)]) -> Pending<u16> {
    let mut pending = Pending::new(in_order, HashMap::new());
    for (id, key) in arrivals {
        assert_eq!(pending.insert(arrival(*id, *key)), Ok(Vec::new()));
    }
    pending
}

fn given(pending: &mut Pending<u16>, now: Instant) -> Option<(Tag, u16)> {
    match pending.next(now) {
        Next::Ready(tag, id) => Some((tag, id)),
        _ => None,
    }
}

#[test]
fn one_message_of_a_key_is_in_flight_and_a_returned_one_goes_first() {
    let now = Instant::now();
    let mut pending = pending(true, &[(1, 7), (2, 7), (3, 8), (4, 7)]);
    assert_eq!(given(&mut pending, now), Some((1, 1)));
    assert_eq!(given(&mut pending, now), Some((3, 3)));
    assert_eq!(pending.next(now), Next::Nothing);
    pending.requeue(1, None);
    assert_eq!(given(&mut pending, now), Some((1, 1)));
    assert_eq!(pending.done(1), Some(vec![1]));
    assert_eq!(given(&mut pending, now), Some((2, 2)));
    assert_eq!(pending.bytes(), 30);
}

#[test]
fn a_returned_message_waits_for_its_delay_and_its_key_with_it() {
    let (now, delay) = (Instant::now(), Duration::from_secs(1));
    let mut pending = pending(true, &[(1, 7), (2, 7), (3, 8)]);
    assert_eq!(given(&mut pending, now), Some((1, 1)));
    pending.requeue(1, Some(now + delay));
    assert_eq!(given(&mut pending, now), Some((3, 3)));
    assert_eq!(pending.next(now), Next::NotBefore(now + delay));
    assert_eq!(given(&mut pending, now + delay), Some((1, 1)));
}

#[test]
fn acknowledgements_keep_the_order_of_arrival_unless_told_otherwise() {
    let now = Instant::now();
    let arrivals = [(11, 1), (12, 2), (13, 3), (14, 4)];
    let mut strict = pending(true, &arrivals);
    let mut free = pending(false, &arrivals);
    for _ in 0..4 {
        given(&mut strict, now);
        given(&mut free, now);
    }
    for (tag, in_order, at_once) in
        [(2, vec![], 12), (3, vec![], 13), (1, vec![11, 12, 13], 11), (4, vec![14], 14)]
    {
        assert_eq!(strict.done(tag), Some(in_order), "{tag}");
        assert_eq!(free.done(tag), Some(vec![at_once]), "{tag}");
    }
    assert_eq!((strict.done(4), strict.bytes(), free.bytes()), (None, 0, 0));
}

#[test]
fn a_message_of_qos_0_is_never_acknowledged_and_holds_nothing_up() {
    let now = Instant::now();
    let mut pending = pending(true, &[]);
    for arrival in [Arrival { id: None, ..arrival(1, 1) }, arrival(2, 2)] {
        assert_eq!(pending.insert(arrival), Ok(Vec::new()));
    }
    let (first, second) = (given(&mut pending, now), given(&mut pending, now));
    assert_eq!((first, second), (Some((1, 1)), Some((2, 2))));
    assert_eq!(pending.done(2), Some(vec![2]), "the one before it is of QoS 0");
    assert_eq!(pending.done(1), Some(Vec::new()));
    assert!(pending.entries.is_empty());
}

#[test]
fn what_was_handled_before_a_loss_is_acknowledged_when_it_comes_again_and_not_delivered() {
    let now = Instant::now();
    let mut before = pending(true, &[(1, 1), (2, 2), (3, 3)]);
    for _ in 0..3 {
        given(&mut before, now);
    }
    assert_eq!(before.done(2), Some(Vec::new()));
    assert_eq!(before.done(3), Some(Vec::new()));
    let handled = before.take_handled();
    assert_eq!(handled.len(), 2);
    let mut after = Pending::new(true, handled);
    let again = |id| Arrival { is_repeat: true, ..arrival(id, u64::from(id)) };
    assert_eq!(after.insert(again(1)), Ok(Vec::new()));
    assert_eq!(after.insert(again(2)), Ok(Vec::new()));
    // Another message under the number of one that was handled.
    let other = Arrival { message: Some(message(9)), is_repeat: false, ..arrival(3, 3) };
    assert_eq!(after.insert(other), Ok(Vec::new()));
    assert_eq!(given(&mut after, now), Some((1, 1)));
    assert_eq!(given(&mut after, now), Some((3, 3)));
    assert_eq!(after.done(1), Some(vec![1, 2]));
    assert_eq!(after.done(3), Some(vec![3]));
}

#[test]
fn a_decision_that_was_reported_holds_though_the_connection_is_lost_on_the_way() {
    let now = Instant::now();
    // What is told of the acknowledgements before the loss, and whose decisions hold.
    type Tell = fn(&mut Pending<u16>);
    let told: [(Tell, &[u16]); 3] = [
        (|_| {}, &[2, 3]),
        (|pending| pending.reported(&[1]), &[1, 2, 3]),
        (|pending| pending.forgotten(&[1, 2]), &[3]),
    ];
    for (tell, expected) in told {
        let mut pending = pending(true, &[(1, 1), (2, 2), (3, 3), (4, 4)]);
        for _ in 0..4 {
            given(&mut pending, now);
        }
        pending.done(3);
        pending.done(2);
        assert_eq!(pending.done(1), Some(vec![1, 2, 3]), "this decision is not reported yet");
        tell(&mut pending);
        let mut held: Vec<u16> = pending.take_handled().into_keys().collect();
        held.sort_unstable();
        assert_eq!(held, expected);
        assert_eq!(pending.done(4), None, "a decision that comes too late");
    }
}

#[test]
fn a_message_that_is_repeated_on_the_same_connection_is_delivered_once() {
    let now = Instant::now();
    let repeat = |id| Arrival { is_repeat: true, ..arrival(id, 1) };
    for in_order in [true, false] {
        let mut pending = pending(in_order, &[(1, 1), (2, 2)]);
        for _ in 0..9 {
            assert_eq!(pending.insert(repeat(1)), Ok(Vec::new()), "while it waits");
        }
        assert_eq!((pending.bytes(), given(&mut pending, now)), (20, Some((1, 1))));
        assert_eq!(pending.insert(repeat(1)), Ok(Vec::new()), "while it is in flight");
        assert_eq!(pending.done(1), Some(vec![1]));
        assert_eq!(pending.insert(repeat(1)), Ok(vec![1]), "it is told once more");
        assert_eq!(given(&mut pending, now), Some((2, 2)));
        assert_eq!(pending.next(now), Next::Nothing);
        // The number is free again, for this message too: a repeat of its sender.
        assert_eq!(pending.insert(arrival(1, 1)), Ok(Vec::new()));
        assert_eq!(given(&mut pending, now), Some((3, 1)));
        let other = Arrival { message: Some(message(9)), ..arrival(1, 1) };
        assert_eq!(pending.insert(other), Err(IdInUse(1)), "another message is not lost");
    }
}

#[test]
fn sixty_thousand_messages_behind_a_slow_one_take_no_longer_each_than_a_few() {
    const MESSAGES: u16 = 60_000;
    let now = Instant::now();
    let mut pending = pending(true, &[]);
    for id in 1..=MESSAGES {
        pending.insert(arrival(id, u64::from(id))).expect("a new one");
    }
    for id in 1..=MESSAGES {
        assert_eq!(given(&mut pending, now), Some((u64::from(id), id)));
    }
    for id in 2..=MESSAGES {
        assert_eq!(pending.done(u64::from(id)), Some(Vec::new()));
    }
    assert_eq!(pending.done(1).map(|ids| ids.len()), Some(60_000));
    // Each against each takes a minute.
    assert!(now.elapsed() < Duration::from_secs(20), "{:?}", now.elapsed());
}
