//! Which message to deliver next, and which ones the server may forget. Pure.
//!
//! One message of a key is in flight at a time, in the order of arrival; messages of other keys are
//! in flight beside it. A returned message is delivered again before any later one of its key. The
//! standard asks for acknowledgements in the order of arrival: one that is due early waits for those
//! before it, unless configured otherwise.
//!
//! # Source
//! MQTT 5.0, section 4.6 (MQTT-4.6.0-2).

use outbox_core::event::MessageId;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Instant,
};

/// Identifies a received message on its connection, in the order of arrival.
pub(super) type Tag = u64;

/// The messages of a connection that the server has not been told to forget.
#[derive(Debug)]
pub(super) struct Pending<R> {
    entries: BTreeMap<Tag, Entry<R>>,
    last: Tag,
    in_order: bool,
    bytes: usize,
    /// Messages that were handled on an earlier connection, which was lost before the server knew.
    handled: HashMap<u16, MessageId>,
}

#[derive(Debug)]
struct Entry<R> {
    /// The server's number of it; `None` for one of QoS 0, which it does not wait for.
    id: Option<u16>,
    message: Option<MessageId>,
    key: Option<u64>,
    size: usize,
    state: State<R>,
}

#[derive(Debug)]
enum State<R> {
    /// Not given out, or returned and not to be given out again before that.
    Waiting(R, Option<Instant>),
    InFlight(R),
    Handled,
}

/// A message that came.
#[derive(Debug)]
pub(super) struct Arrival<R> {
    pub(super) id: Option<u16>,
    pub(super) message: Option<MessageId>,
    /// The hash of its key.
    pub(super) key: Option<u64>,
    pub(super) size: usize,
    /// Whether the server has sent it before.
    pub(super) is_repeat: bool,
    pub(super) record: R,
}

/// What may be delivered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<R> {
    Ready(Tag, R),
    /// Nothing before that.
    NotBefore(Instant),
    Nothing,
}

impl<R: Clone> Pending<R> {
    pub(super) fn new(in_order: bool, handled: HashMap<u16, MessageId>) -> Self {
        Self { entries: BTreeMap::new(), last: 0, in_order, bytes: 0, handled }
    }

    /// Adds a message. Gives the numbers to acknowledge: it may be one that was handled already.
    pub(super) fn insert(&mut self, arrival: Arrival<R>) -> Vec<u16> {
        let Arrival { id, message, key, size, is_repeat, record } = arrival;
        self.last += 1;
        let known = id.and_then(|id| self.handled.remove(&id));
        let is_handled = is_repeat && known.is_some() && known == message;
        let state = if is_handled {
            State::Handled
        } else {
            self.bytes += size;
            State::Waiting(record, None)
        };
        self.entries.insert(self.last, Entry { id, message, key, size, state });
        if is_handled { self.acknowledged(self.last) } else { Vec::new() }
    }

    /// Gives out the earliest message that may be delivered.
    pub(super) fn next(&mut self, now: Instant) -> Next<R> {
        let (mut busy, mut earliest) = (HashSet::new(), None::<Instant>);
        for (tag, entry) in &mut self.entries {
            let is_free = entry.key.is_none_or(|key| !busy.contains(&key));
            match &entry.state {
                State::Handled => continue,
                State::Waiting(record, due) if is_free => match due {
                    Some(due) if *due > now => {
                        earliest = Some(earliest.map_or(*due, |earliest| earliest.min(*due)));
                    }
                    _ => {
                        let record = record.clone();
                        entry.state = State::InFlight(record.clone());
                        return Next::Ready(*tag, record);
                    }
                },
                State::Waiting(..) | State::InFlight(_) => {}
            }
            busy.extend(entry.key);
        }
        earliest.map_or(Next::Nothing, Next::NotBefore)
    }

    /// Notes that a message in flight is handled. Gives the numbers to acknowledge.
    pub(super) fn done(&mut self, tag: Tag) -> Vec<u16> {
        let Some(entry) = self.entries.get_mut(&tag) else { return Vec::new() };
        if !matches!(entry.state, State::InFlight(_)) {
            return Vec::new();
        }
        entry.state = State::Handled;
        self.bytes -= entry.size;
        self.acknowledged(tag)
    }

    /// Returns a message in flight, to be delivered again, not before `due`.
    pub(super) fn requeue(&mut self, tag: Tag, due: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&tag) else { return };
        if let State::InFlight(record) = &entry.state {
            entry.state = State::Waiting(record.clone(), due);
        }
    }

    /// Gives the bytes of the messages that are not handled.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the messages that are handled and not acknowledged, by their numbers: the server will
    /// send them again under these.
    pub(super) fn take_handled(&mut self) -> HashMap<u16, MessageId> {
        let handled = |entry: &Entry<R>| matches!(entry.state, State::Handled);
        let known = self.entries.values().filter(|entry| handled(entry));
        let mut all: HashMap<u16, MessageId> =
            known.filter_map(|entry| Some((entry.id?, entry.message?))).collect();
        all.extend(self.handled.drain());
        self.entries.clear();
        self.bytes = 0;
        all
    }

    /// Removes what may be acknowledged now that a message is handled.
    fn acknowledged(&mut self, tag: Tag) -> Vec<u16> {
        if !self.in_order {
            let entry = self.entries.remove(&tag);
            return entry.and_then(|entry| entry.id).into_iter().collect();
        }
        if self.entries.get(&tag).is_some_and(|entry| entry.id.is_none()) {
            self.entries.remove(&tag);
        }
        let open = |entry: &Entry<R>| entry.id.is_some() && !matches!(entry.state, State::Handled);
        let first_open = self.entries.iter().find(|(_, entry)| open(entry)).map(|(tag, _)| *tag);
        let is_due = |tag: &Tag, entry: &Entry<R>| {
            entry.id.is_some() && first_open.is_none_or(|open| *tag < open)
        };
        let due: Vec<Tag> =
            self.entries.iter().filter(|(tag, e)| is_due(tag, e)).map(|(tag, _)| *tag).collect();
        due.iter().filter_map(|tag| self.entries.remove(tag)?.id).collect()
    }
}

#[cfg(test)]
mod tests {
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
            assert_eq!(pending.insert(arrival(*id, *key)), [] as [u16; 0]);
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
        assert_eq!(pending.done(1), [1]);
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
            assert_eq!(strict.done(tag), in_order, "{tag}");
            assert_eq!(free.done(tag), [at_once], "{tag}");
        }
        assert_eq!((strict.done(4), strict.bytes(), free.bytes()), (vec![], 0, 0));
    }

    #[test]
    fn a_message_of_qos_0_is_never_acknowledged_and_holds_nothing_up() {
        let now = Instant::now();
        let mut pending = pending(true, &[]);
        pending.insert(Arrival { id: None, ..arrival(1, 1) });
        pending.insert(arrival(2, 2));
        let (first, second) = (given(&mut pending, now), given(&mut pending, now));
        assert_eq!((first, second), (Some((1, 1)), Some((2, 2))));
        assert_eq!(pending.done(2), [2], "the one before it is of QoS 0");
        assert_eq!(pending.done(1), [] as [u16; 0]);
        assert!(pending.entries.is_empty());
    }

    #[test]
    fn what_was_handled_before_a_loss_is_acknowledged_when_it_comes_again_and_not_delivered() {
        let now = Instant::now();
        let mut before = pending(true, &[(1, 1), (2, 2), (3, 3)]);
        for _ in 0..3 {
            given(&mut before, now);
        }
        assert_eq!(before.done(2), [] as [u16; 0]);
        assert_eq!(before.done(3), [] as [u16; 0]);
        let handled = before.take_handled();
        assert_eq!(handled.len(), 2);
        let mut after = Pending::new(true, handled);
        let again = |id| Arrival { is_repeat: true, ..arrival(id, u64::from(id)) };
        assert_eq!(after.insert(again(1)), [] as [u16; 0]);
        assert_eq!(after.insert(again(2)), [] as [u16; 0]);
        // Another message under the number of one that was handled.
        let other = Arrival { message: Some(message(9)), is_repeat: false, ..arrival(3, 3) };
        assert_eq!(after.insert(other), [] as [u16; 0]);
        assert_eq!(given(&mut after, now), Some((1, 1)));
        assert_eq!(given(&mut after, now), Some((3, 3)));
        assert_eq!(after.done(1), [1, 2]);
        assert_eq!(after.done(3), [3]);
    }
}
