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
    collections::{BTreeSet, HashMap, VecDeque},
    time::Instant,
};

/// Identifies a received message on its connection, in the order of arrival.
pub(super) type Tag = u64;

/// The messages of a connection that the server has not been told to forget. What is done about
/// one of them does not depend on how many there are.
#[derive(Debug)]
pub(super) struct Pending<R> {
    entries: HashMap<Tag, Entry<R>>,
    last: Tag,
    in_order: bool,
    bytes: usize,
    /// Those that may be given out.
    ready: BTreeSet<Tag>,
    /// Returned ones, which are not to be given out before that.
    delayed: BTreeSet<(Instant, Tag)>,
    /// Those of each key that are not handled, in the order of arrival: the first one is ready,
    /// delayed or in flight.
    keys: HashMap<u64, VecDeque<Tag>>,
    /// Those that the server waits for, in the order of arrival, where acknowledgements keep it.
    unacknowledged: VecDeque<Tag>,
    /// The same, by the server's numbers.
    by_id: HashMap<u16, Tag>,
    /// Messages whose acknowledgement is on its way: the server may not have it yet.
    leaving: HashMap<u16, Leaving>,
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
    /// Not given out, or returned.
    Waiting(R),
    InFlight(R),
    Handled,
}

/// A message that the server was told to forget.
#[derive(Debug)]
struct Leaving {
    message: MessageId,
    /// Whether its ack decision was reported as carried out: it must not be delivered again then.
    is_reported: bool,
}

/// The server has given the number of a message that is pending to another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IdInUse(pub(super) u16);

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
        Self {
            entries: HashMap::new(),
            last: 0,
            in_order,
            bytes: 0,
            ready: BTreeSet::new(),
            delayed: BTreeSet::new(),
            keys: HashMap::new(),
            unacknowledged: VecDeque::new(),
            by_id: HashMap::new(),
            leaving: HashMap::new(),
            handled,
        }
    }

    /// Adds a message. Gives the numbers to acknowledge: it may be one that was handled already.
    /// One that is pending under its number is there: a server that repeats it on the same
    /// connection would have it delivered beside itself, and without a bound.
    ///
    /// # Errors
    /// Its number is that of another message.
    pub(super) fn insert(&mut self, arrival: Arrival<R>) -> Result<Vec<u16>, IdInUse> {
        let Arrival { id, message, key, size, is_repeat, record } = arrival;
        if let Some(id) = id {
            let pending = self.by_id.get(&id).and_then(|tag| self.entries.get(tag));
            if let Some(pending) = pending {
                let is_same = pending.message == message;
                return if is_same { Ok(Vec::new()) } else { Err(IdInUse(id)) };
            }
            let left = self.leaving.remove(&id);
            if let Some(left) = left.filter(|left| is_repeat && Some(left.message) == message) {
                self.leaving.insert(id, left);
                return Ok(vec![id]);
            }
        }
        let known = id.and_then(|id| self.handled.remove(&id));
        let is_handled = is_repeat && known.is_some() && known == message;
        self.last += 1;
        let tag = self.last;
        if let Some(id) = id {
            self.by_id.insert(id, tag);
            self.unacknowledged.extend(self.in_order.then_some(tag));
        }
        let state = if is_handled { State::Handled } else { State::Waiting(record) };
        self.entries.insert(tag, Entry { id, message, key, size, state });
        if is_handled {
            return Ok(self.acknowledged(tag, None));
        }
        self.bytes += size;
        match key {
            Some(key) => {
                let queue = self.keys.entry(key).or_default();
                queue.push_back(tag);
                self.ready.extend((queue.len() == 1).then_some(tag));
            }
            None => _ = self.ready.insert(tag),
        }
        Ok(Vec::new())
    }

    /// Gives out the earliest message that may be delivered.
    pub(super) fn next(&mut self, now: Instant) -> Next<R> {
        while let Some(&(due, tag)) = self.delayed.first()
            && due <= now
        {
            self.delayed.pop_first();
            self.ready.insert(tag);
        }
        while let Some(tag) = self.ready.pop_first() {
            let Some(entry) = self.entries.get_mut(&tag) else { continue };
            if let State::Waiting(record) = &entry.state {
                let record = record.clone();
                entry.state = State::InFlight(record.clone());
                return Next::Ready(tag, record);
            }
        }
        self.delayed.first().map_or(Next::Nothing, |(due, _)| Next::NotBefore(*due))
    }

    /// Notes that a message in flight is handled. Gives the numbers to acknowledge; `None` where
    /// the messages were taken for the next connection, to which the server sends this one again.
    pub(super) fn done(&mut self, tag: Tag) -> Option<Vec<u16>> {
        let entry = self.entries.get_mut(&tag)?;
        if !matches!(entry.state, State::InFlight(_)) {
            return Some(Vec::new());
        }
        entry.state = State::Handled;
        self.bytes -= entry.size;
        if let Some(key) = entry.key
            && let Some(queue) = self.keys.get_mut(&key)
        {
            queue.pop_front();
            self.ready.extend(queue.front());
            if queue.is_empty() {
                self.keys.remove(&key);
            }
        }
        Some(self.acknowledged(tag, Some(tag)))
    }

    /// Returns a message in flight, to be delivered again, not before `due`.
    pub(super) fn requeue(&mut self, tag: Tag, due: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&tag) else { return };
        if let State::InFlight(record) = &entry.state {
            entry.state = State::Waiting(record.clone());
            match due {
                Some(due) => _ = self.delayed.insert((due, tag)),
                None => _ = self.ready.insert(tag),
            }
        }
    }

    /// Gives the bytes of the messages that are not handled.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Notes that the ack decisions of messages are reported as carried out, though the server may
    /// not have the acknowledgements yet.
    pub(super) fn reported(&mut self, ids: &[u16]) {
        for id in ids {
            if let Some(leaving) = self.leaving.get_mut(id) {
                leaving.is_reported = true;
            }
        }
    }

    /// Notes that the server has forgotten messages.
    pub(super) fn forgotten(&mut self, ids: &[u16]) {
        for id in ids {
            self.leaving.remove(id);
        }
    }

    /// Takes the messages that are handled, as far as the server is not known to have forgotten
    /// them, by their numbers: it will send them again under these. One whose ack decision is not
    /// reported yet, and so fails, is none of them.
    pub(super) fn take_handled(&mut self) -> HashMap<u16, MessageId> {
        let next = Self::new(self.in_order, HashMap::new());
        let Self { entries, leaving, handled, .. } = std::mem::replace(self, next);
        let is_handled = |entry: &Entry<R>| matches!(entry.state, State::Handled);
        let waiting = entries.into_values().filter(is_handled);
        let waiting = waiting.filter_map(|entry| Some((entry.id?, entry.message?)));
        let leaving = leaving.into_iter().filter(|(_, leaving)| leaving.is_reported);
        let leaving = leaving.map(|(id, leaving)| (id, leaving.message));
        waiting.chain(leaving).chain(handled).collect()
    }

    /// Removes what may be acknowledged now that a message is handled. The ack decision of one,
    /// where it is given, waits for the server; those of the others are reported.
    fn acknowledged(&mut self, tag: Tag, deciding: Option<Tag>) -> Vec<u16> {
        let is_qos_1 = self.entries.get(&tag).is_some_and(|entry| entry.id.is_some());
        if !self.in_order || !is_qos_1 {
            return self.remove(tag, deciding != Some(tag)).into_iter().collect();
        }
        let mut ids = Vec::new();
        while let Some(first) = self.unacknowledged.front().copied()
            && self.is_handled(first)
        {
            self.unacknowledged.pop_front();
            ids.extend(self.remove(first, deciding != Some(first)));
        }
        ids
    }

    fn is_handled(&self, tag: Tag) -> bool {
        self.entries.get(&tag).is_none_or(|entry| matches!(entry.state, State::Handled))
    }

    /// Removes a message that is handled, and gives its number.
    fn remove(&mut self, tag: Tag, is_reported: bool) -> Option<u16> {
        let entry = self.entries.remove(&tag)?;
        let id = entry.id?;
        self.by_id.remove(&id);
        if let Some(message) = entry.message {
            self.leaving.insert(id, Leaving { message, is_reported });
        }
        Some(id)
    }
}

#[cfg(test)]
mod tests;
