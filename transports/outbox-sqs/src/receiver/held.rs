//! The messages that a subscriber has: which wait, which are in flight, and until when they are its
//! own. Pure.

use outbox_core::event::Message;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

/// Bytes from which on no more messages are received.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// One receive of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tag(u64);

/// A message as it came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Received {
    /// The service's own id of the message.
    pub(crate) id: String,
    /// The group of a FIFO queue.
    pub(crate) group: Option<String>,
    /// How often it was received, this time included.
    pub(crate) deliveries: u32,
    pub(crate) body: String,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) message: Result<Message, String>,
}

impl Received {
    fn bytes(&self) -> usize {
        let attributes: usize = self.attributes.iter().map(|(n, v)| n.len() + v.len()).sum();
        // The message was made from a copy of the body.
        2 * self.body.len() + attributes
    }
}

#[derive(Debug)]
struct Entry {
    /// What acknowledges this receive of it.
    receipt: String,
    group: Option<String>,
    /// When the service makes it visible again, unless it is told otherwise.
    until: Instant,
    bytes: usize,
    /// `None` for one that is in flight.
    waiting: Option<Received>,
    /// Whether it has its ack decision, or is another's: its visibility is not extended.
    is_over: bool,
}

/// The order of one group: one of its messages is in flight at a time.
#[derive(Debug, Default)]
struct Group {
    in_flight: Option<Tag>,
    waiting: BTreeSet<Tag>,
}

/// All messages of a subscriber.
#[derive(Debug, Default)]
pub(crate) struct Held {
    last: u64,
    entries: BTreeMap<Tag, Entry>,
    /// Those that may be handed out.
    ready: BTreeSet<Tag>,
    groups: HashMap<String, Group>,
    bytes: usize,
}

impl Held {
    /// Adds a message that was received.
    pub(crate) fn add(&mut self, receipt: String, until: Instant, received: Received) {
        self.last += 1;
        let tag = Tag(self.last);
        let (group, bytes) = (received.group.clone(), received.bytes());
        self.bytes += bytes;
        let waiting = Some(received);
        let entry = Entry { receipt, group: group.clone(), until, bytes, waiting, is_over: false };
        self.entries.insert(tag, entry);
        match group {
            Some(group) => {
                self.groups.entry(group.clone()).or_default().waiting.insert(tag);
                self.advance(&group);
            }
            None => _ = self.ready.insert(tag),
        }
    }

    /// Hands the next message out. Those whose time is up are forgotten: the service delivers them
    /// again, perhaps to another subscriber.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(Tag, Received)> {
        self.expire(now);
        let tag = self.ready.pop_first()?;
        let entry = self.entries.get_mut(&tag)?;
        let received = entry.waiting.take()?;
        if let Some(group) = entry.group.as_ref().and_then(|group| self.groups.get_mut(group)) {
            group.waiting.remove(&tag);
            group.in_flight = Some(tag);
        }
        Some((tag, received))
    }

    fn expire(&mut self, now: Instant) {
        let is_late = |entry: &Entry| entry.waiting.is_some() && entry.until <= now;
        let late = self.entries.iter().filter(|(_, entry)| is_late(entry));
        let late: Vec<Tag> = late.map(|(tag, _)| *tag).collect();
        for tag in late {
            // Those behind it in its group would be handled before it.
            self.remove_from(tag);
        }
    }

    /// Removes a message that was acknowledged. The next one of its group may be handed out.
    pub(crate) fn done(&mut self, tag: Tag) {
        if let Some((_, Some(group))) = self.remove(tag) {
            self.advance(&group);
        }
    }

    /// Notes that a message has its ack decision, and gives what acknowledges it.
    pub(crate) fn decide(&mut self, tag: Tag) -> Option<String> {
        let entry = self.entries.get_mut(&tag)?;
        entry.is_over = true;
        Some(entry.receipt.clone())
    }

    /// Removes a message that is to be delivered again, with those that wait behind it in its group,
    /// which are to come after it. Gives what returns them, in their order.
    pub(crate) fn take_back(&mut self, tag: Tag) -> Vec<String> {
        let group = self.entries.get(&tag).and_then(|entry| entry.group.clone());
        let behind = group.and_then(|group| Some(self.groups.get(&group)?.waiting.clone()));
        let all = std::iter::once(tag).chain(behind.into_iter().flatten());
        all.filter_map(|tag| self.remove(tag)).map(|(receipt, _)| receipt).collect()
    }

    /// Removes all messages that wait, and gives what returns them.
    pub(crate) fn take_waiting(&mut self) -> Vec<String> {
        let waiting = self.entries.iter().filter(|(_, entry)| entry.waiting.is_some());
        let waiting: Vec<Tag> = waiting.map(|(tag, _)| *tag).collect();
        waiting.into_iter().filter_map(|tag| self.remove(tag)).map(|(receipt, _)| receipt).collect()
    }

    /// Lists the messages without an ack decision.
    pub(crate) fn undecided(&self) -> Vec<(Tag, String)> {
        let undecided = self.entries.iter().filter(|(_, entry)| !entry.is_over);
        undecided.map(|(tag, entry)| (*tag, entry.receipt.clone())).collect()
    }

    /// Notes that a message is this subscriber's for longer.
    pub(crate) fn extend(&mut self, tag: Tag, until: Instant) {
        if let Some(entry) = self.entries.get_mut(&tag) {
            entry.until = entry.until.max(until);
        }
    }

    /// Notes that a message is no longer this subscriber's: one that waits is forgotten, and one in
    /// flight is not extended any more.
    pub(crate) fn lose(&mut self, tag: Tag) {
        match self.entries.get_mut(&tag) {
            Some(entry) if entry.waiting.is_none() => entry.is_over = true,
            Some(_) => self.remove_from(tag),
            None => {}
        }
    }

    /// Tells for how many more messages there is room.
    pub(crate) fn room(&self, prefetch: usize) -> usize {
        if self.bytes >= MAX_BYTES { 0 } else { prefetch.saturating_sub(self.entries.len()) }
    }

    /// Removes a waiting message and those behind it in its group.
    fn remove_from(&mut self, tag: Tag) {
        let group = self.entries.get(&tag).and_then(|entry| entry.group.clone());
        let behind = group.and_then(|group| {
            Some(self.groups.get(&group)?.waiting.range(tag..).copied().collect::<Vec<_>>())
        });
        for tag in behind.unwrap_or_else(|| vec![tag]) {
            self.remove(tag);
        }
    }

    fn remove(&mut self, tag: Tag) -> Option<(String, Option<String>)> {
        let entry = self.entries.remove(&tag)?;
        self.bytes -= entry.bytes;
        self.ready.remove(&tag);
        if let Some(name) = &entry.group
            && let Some(group) = self.groups.get_mut(name)
        {
            group.waiting.remove(&tag);
            group.in_flight = group.in_flight.filter(|other| *other != tag);
            if group.waiting.is_empty() && group.in_flight.is_none() {
                self.groups.remove(name);
            }
        }
        Some((entry.receipt, entry.group))
    }

    /// Makes the first message of a group ready, where none is in flight.
    fn advance(&mut self, group: &str) {
        if let Some(group) = self.groups.get(group)
            && group.in_flight.is_none()
        {
            self.ready.extend(group.waiting.first());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LEASE: Duration = Duration::from_secs(30);

    fn received(id: &str, group: Option<&str>) -> Received {
        Received {
            id: id.to_owned(),
            group: group.map(str::to_owned),
            deliveries: 1,
            body: "body".to_owned(),
            attributes: vec![("name".to_owned(), "value".to_owned())],
            message: Err("not read".to_owned()),
        }
    }

    fn held(now: Instant, messages: &[(&str, Option<&str>)]) -> Held {
        let mut held = Held::default();
        for (id, group) in messages {
            held.add(format!("r{id}"), now + LEASE, received(id, *group));
        }
        held
    }

    fn next(held: &mut Held, now: Instant) -> Option<(Tag, String)> {
        held.next(now).map(|(tag, received)| (tag, received.id))
    }

    #[test]
    fn without_groups_all_messages_are_handed_out_in_the_order_in_which_they_came() {
        let now = Instant::now();
        let mut held = held(now, &[("1", None), ("2", None), ("3", None)]);
        let ids: Vec<String> =
            std::iter::from_fn(|| next(&mut held, now)).map(|(_, id)| id).collect();
        assert_eq!(ids, ["1", "2", "3"]);
    }

    #[test]
    fn a_group_has_one_message_in_flight_and_others_go_beside_it() {
        let now = Instant::now();
        let mut held = held(now, &[("1", Some("a")), ("2", Some("a")), ("3", Some("b"))]);
        let (first, id) = next(&mut held, now).expect("ready");
        assert_eq!(id, "1");
        assert_eq!(next(&mut held, now).expect("ready").1, "3");
        assert_eq!(next(&mut held, now), None, "the second of `a` waits for the first");
        held.done(first);
        assert_eq!(next(&mut held, now).expect("ready").1, "2");
    }

    #[test]
    fn a_returned_message_takes_those_behind_it_along() {
        let now = Instant::now();
        let mut held =
            held(now, &[("1", Some("a")), ("2", Some("a")), ("3", Some("a")), ("4", Some("b"))]);
        let (first, _) = next(&mut held, now).expect("ready");
        assert_eq!(held.take_back(first), ["r1", "r2", "r3"]);
        assert_eq!(next(&mut held, now).expect("ready").1, "4");
        assert_eq!(next(&mut held, now), None);
        // When they come again, the first is the first.
        held.add("s1".into(), now + LEASE, received("1", Some("a")));
        held.add("s2".into(), now + LEASE, received("2", Some("a")));
        assert_eq!(next(&mut held, now).expect("ready").1, "1");
    }

    #[test]
    fn what_waits_beyond_its_time_is_not_handed_out_nor_is_what_stands_behind_it() {
        let now = Instant::now();
        let mut held = held(now, &[("1", None), ("2", Some("a")), ("3", Some("a")), ("4", None)]);
        let undecided = held.undecided();
        held.extend(undecided[3].0, now + 2 * LEASE);
        held.extend(undecided[2].0, now + 2 * LEASE);
        let later = now + LEASE;
        assert_eq!(next(&mut held, later).expect("extended").1, "4");
        assert_eq!(next(&mut held, later), None, "3 stands behind 2");
        assert_eq!(held.undecided().len(), 1, "the one in flight");
    }

    #[test]
    fn a_message_with_its_ack_decision_or_lost_is_not_extended() {
        let now = Instant::now();
        let mut held = held(now, &[("1", None), ("2", None), ("3", None)]);
        let (first, _) = next(&mut held, now).expect("ready");
        let (second, _) = next(&mut held, now).expect("ready");
        assert_eq!(held.decide(first).as_deref(), Some("r1"));
        held.lose(second);
        let (third, receipt) = held.undecided().pop().expect("one is left");
        assert_eq!(receipt, "r3");
        held.lose(third);
        assert_eq!(next(&mut held, now), None, "one that waits is forgotten");
        held.done(first);
        assert_eq!(held.decide(first), None);
        assert_eq!(held.decide(second).as_deref(), Some("r2"), "its ack may still count");
    }

    #[test]
    fn there_is_room_by_number_and_by_bytes() {
        let now = Instant::now();
        let mut held = held(now, &[("1", None), ("2", Some("a")), ("3", Some("a"))]);
        assert_eq!((held.room(5), held.room(3), held.room(2)), (2, 0, 0));
        let mut large = received("4", None);
        large.body = "x".repeat(MAX_BYTES / 2);
        held.add("r4".into(), now + LEASE, large);
        assert_eq!(held.room(100), 0);
        let waiting = held.take_waiting();
        assert_eq!(waiting, ["r1", "r2", "r3", "r4"]);
        assert_eq!((held.room(5), held.bytes, held.groups.len()), (5, 0, 0));
    }
}
