//! Following events: what was created, confirmed and given up since the last look.

use super::{AdminStore, DeadLetterFilter};
use crate::{
    event::{EventId, LetterId, MessageId, Timestamp},
    failure::DeadLetter,
    outbox::{PartitionNo, StoreError},
};
use async_trait::async_trait;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Ids before the newest one from which each look reads again: an event becomes visible with its
/// transaction, after events with higher ids. A relay's own reads look back as far.
const LOOK_BACK: u32 = 1_000;
/// Ids of letters before the last one that was read from which each look reads again, without their
/// content: a letter becomes visible with its transaction too.
const LETTERS_BACK: u32 = 1_000;
/// Events that are followed until they have ended, some 4 MB; of more, the oldest are given up.
const MOST_FOLLOWED: usize = 10_000;
/// Events of one partition, or of the archive, that one look reads: those that it reads again and
/// 500 new ones. With no more than the former, a look would end before the first new one.
const MOST_READ: u32 = LOOK_BACK + 500;
/// Dead letters that one look reads. They have their content, so the store limits them in bytes
/// too.
const MOST_LETTERS: u32 = 500;
/// Dead letters that were shown and are remembered, beside those of events that are followed.
const MOST_SHOWN: usize = 1_000;

/// An event in the outbox or in the archive, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailEvent {
    /// Its partition.
    pub partition: PartitionNo,
    /// Its place in the order.
    pub id: EventId,
    /// The message.
    pub message: MessageId,
    /// Its topic, as it is stored.
    pub topic: String,
    /// Its type.
    pub event_type: String,
    /// Its key, as it is stored.
    pub key: Option<String>,
    /// When it was saved.
    pub created_at: Timestamp,
    /// When all routes had confirmed it; `None` while it waits.
    pub finished_at: Option<Timestamp>,
}

/// Events of one read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TailRead {
    /// The events, by id.
    pub events: Vec<TailEvent>,
    /// The id up to which the read has all events; `None` where it has all that there are.
    pub complete_to: Option<EventId>,
}

/// A dead letter of an event that a route has given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailLetter {
    /// The event.
    pub event: EventId,
    /// The letter.
    pub letter: LetterId,
    /// Whether the event was redriven from it: then it is no end of the event.
    pub redriven: bool,
}

/// What a store must do so that its events can be followed: reads by key, which walk no table.
#[async_trait]
pub trait TailStore: Send + Sync + 'static {
    /// Gives the highest id of an event that waits or is archived; 0 without one.
    async fn newest_event(&self) -> Result<EventId, StoreError>;

    /// Gives events with ids above one, at most `limit` of each partition and of the archive.
    async fn events_after(&self, after: EventId, limit: u32) -> Result<TailRead, StoreError>;

    /// Gives those of these events that still wait.
    async fn still_waiting(
        &self,
        events: &[(PartitionNo, EventId)],
    ) -> Result<Vec<EventId>, StoreError>;

    /// Gives the letters of these events that relays have written, by number, also those that were
    /// resolved.
    async fn given_up(&self, events: &[EventId]) -> Result<Vec<TailLetter>, StoreError>;

    /// Gives the numbers of letters above one up to another, in order, also of those that were
    /// resolved: without a limit, since the caller chooses how far they are apart.
    async fn letters_between(
        &self,
        above: LetterId,
        up_to: LetterId,
    ) -> Result<Vec<LetterId>, StoreError>;
}

/// What happened to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TailKind {
    /// It was saved.
    Created,
    /// All its routes have confirmed it; none has given it up, unless it was redriven.
    Confirmed,
    /// A route or a consumer has given it up.
    Dead,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TailEntry {
    /// When, by the database's clock; `None` where it does not keep that.
    pub at: Option<Timestamp>,
    /// What.
    pub kind: TailKind,
    /// The message; `None` of a dead letter that does not decode.
    pub message: Option<MessageId>,
    /// Its topic, as it is stored; empty if unknown.
    pub topic: String,
    /// Its type; empty if unknown.
    pub event_type: String,
    /// Its key, as it is stored: it may have marks that a terminal obeys.
    pub key: Option<String>,
    /// Of a dead letter its number, who gave it up, and why.
    pub detail: Option<String>,
}

/// Follows the events of one store.
///
/// An event that is created and confirmed between two looks leaves a row in the archive only; without
/// the archive it is not seen. One whose transaction commits when a thousand later ids are visible is
/// not seen either, and neither is a dead letter of a consumer, or of an event that is not followed,
/// whose transaction commits so late.
///
/// ```
/// # use outbox_core::{admin::{AdminStore, Tail, TailStore}, outbox::StoreError};
/// # async fn example(outbox: impl AdminStore + TailStore) -> Result<(), StoreError> {
/// let mut tail = Tail::start(&outbox).await?;
/// for entry in tail.look(&outbox).await? {
///     println!("{:?} {} {:?}", entry.kind, entry.topic, entry.key);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Tail {
    /// Nothing up to here is shown as created.
    start: EventId,
    newest: EventId,
    /// Letters up to here were there at the start.
    start_letter: Option<LetterId>,
    /// The last letter that was read.
    letter: Option<LetterId>,
    /// Letters in the window of looking back that were seen.
    seen_letters: BTreeSet<LetterId>,
    /// Ids in the window of looking back that were seen.
    seen: BTreeSet<EventId>,
    /// Events that wait.
    followed: BTreeMap<EventId, TailEvent>,
    /// Letters that were shown, with their events: the newest ones, and those of `followed`.
    shown: BTreeMap<LetterId, EventId>,
}

/// What one look has read.
#[derive(Debug, Default)]
struct Look {
    read: TailRead,
    /// Events that wait, of those that are followed.
    waiting: BTreeSet<EventId>,
    /// Letters of the events that have ended.
    given_up: Vec<TailLetter>,
    /// Letters behind the last one that was read.
    letters: Vec<DeadLetter>,
    /// Letters up to that one that were not shown, each with its entry.
    missed: Vec<(LetterId, EventId, TailEntry)>,
}

impl Tail {
    /// Begins behind what there is.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be asked.
    pub async fn start(store: &(impl AdminStore + TailStore)) -> Result<Self, StoreError> {
        let start = store.newest_event().await?;
        let letter = store.newest_letter().await?;
        let seen_letters = letters_in_window(store, letter).await?.into_iter().collect();
        let mut tail = Self {
            start,
            newest: start,
            start_letter: letter,
            letter,
            seen_letters,
            seen: BTreeSet::new(),
            followed: BTreeMap::new(),
            shown: BTreeMap::new(),
        };
        // What waits already is not shown as created, and its end is.
        let old = store.events_after(EventId(0), MOST_READ).await?.events;
        tail.follow(old.into_iter().filter(|it| it.id <= start && it.finished_at.is_none()));
        Ok(tail)
    }

    /// Gives what has happened since the last look: what was created by id, then what has ended.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be asked; the next look shows what this one would have.
    ///
    /// # Cancel safety
    /// Dropped, the next look shows what this one would have.
    pub async fn look(
        &mut self,
        store: &(impl AdminStore + TailStore),
    ) -> Result<Vec<TailEntry>, StoreError> {
        let from = window(self.newest).max(self.start);
        let read = store.events_after(from, MOST_READ).await?;
        let followed: Vec<_> =
            self.followed.values().map(|event| (event.partition, event.id)).collect();
        let mut waiting: BTreeSet<EventId> =
            store.still_waiting(&followed).await?.into_iter().collect();
        // After that: the transaction that ends an event writes its letter too.
        let given_up = store.given_up(&self.ended(&read, &waiting)).await?;
        // What was redriven before the letters were read waits again.
        let redriven = given_up.iter().filter(|letter| letter.redriven);
        let redriven: Vec<_> = redriven
            .filter_map(|letter| self.followed.get(&letter.event))
            .map(|event| (event.partition, event.id))
            .collect();
        waiting.extend(store.still_waiting(&redriven).await?);
        let every = DeadLetterFilter { include_resolved: true, ..DeadLetterFilter::all() };
        let letters = store.dead_letters(&every, self.letter, MOST_LETTERS).await?;
        let in_window = letters_in_window(store, self.letter).await?;
        let mut unread = self.missed(&given_up, &letters);
        unread.extend(self.late(&in_window));
        let mut missed = Vec::new();
        for id in unread {
            let found = store.dead_letters(&every.clone().letter(id), None, 1).await?;
            missed.extend(found.first().map(|letter| (id, letter.event_id, dead_entry(letter))));
        }
        Ok(self.note(Look { read, waiting, given_up, letters, missed }))
    }

    /// Gives the events that have ended: those that were followed before the look and wait no more,
    /// and those that came and went since the last one.
    fn ended(&self, read: &TailRead, waiting: &BTreeSet<EventId>) -> Vec<EventId> {
        let followed = self.followed.keys().filter(|id| !waiting.contains(id)).copied();
        let passed = read.events.iter().filter(|event| event.finished_at.is_some());
        let passed = passed.map(|event| event.id).filter(|id| !self.seen.contains(id));
        followed.chain(passed).collect()
    }

    /// Gives the letters of ended events that no read of letters has shown or will show: they
    /// became visible after letters with higher numbers, or were there at the start. A redrive
    /// before the start is no news.
    fn missed(&self, given_up: &[TailLetter], letters: &[DeadLetter]) -> BTreeSet<LetterId> {
        let cursor = letters.last().map(|letter| letter.id).or(self.letter);
        let read: BTreeSet<LetterId> = letters.iter().map(|letter| letter.id).collect();
        let news = given_up.iter().filter(|it| !it.redriven || Some(it.letter) > self.start_letter);
        news.map(|it| it.letter)
            .filter(|id| Some(*id) <= cursor)
            .filter(|id| !read.contains(id) && !self.shown.contains_key(id))
            .collect()
    }

    /// Gives the first letters of the window that became visible after letters with higher numbers:
    /// as many as one look reads, the others are for the next look.
    fn late(&self, in_window: &[LetterId]) -> Vec<LetterId> {
        let is_new =
            |id: &LetterId| !self.seen_letters.contains(id) && !self.shown.contains_key(id);
        in_window.iter().copied().filter(is_new).take(MOST_LETTERS as usize).collect()
    }

    /// Notes what a look has read; pure.
    fn note(&mut self, look: Look) -> Vec<TailEntry> {
        let Look { read, waiting, given_up, letters, missed } = look;
        let mut entries = Vec::new();
        let given_up: BTreeSet<EventId> =
            given_up.iter().filter(|letter| !letter.redriven).map(|letter| letter.event).collect();
        // Only what was followed before the look was asked for.
        let ended: Vec<EventId> =
            self.followed.keys().filter(|id| !waiting.contains(id)).copied().collect();
        let archived: BTreeMap<EventId, Timestamp> =
            read.events.iter().filter_map(|event| Some((event.id, event.finished_at?))).collect();
        let mut newest = self.newest;
        let new: Vec<TailEvent> =
            read.events.into_iter().filter(|event| self.seen.insert(event.id)).collect();
        for event in &new {
            newest = newest.max(event.id);
            entries.push(entry(event, TailKind::Created, Some(event.created_at)));
        }
        for event in ended.iter().filter_map(|id| self.followed.remove(id)) {
            if !given_up.contains(&event.id) {
                let at = archived.get(&event.id).copied();
                entries.push(entry(&event, TailKind::Confirmed, at));
            }
        }
        let passed = new.iter().filter(|event| event.finished_at.is_some());
        for event in passed.filter(|event| !given_up.contains(&event.id)) {
            entries.push(entry(event, TailKind::Confirmed, event.finished_at));
        }
        entries.extend(letters.iter().map(dead_entry));
        self.letter = letters.last().map(|letter| letter.id).or(self.letter);
        self.seen_letters.extend(letters.iter().map(|letter| letter.id));
        self.newest = read.complete_to.map_or(newest, |to| newest.min(to.max(self.newest)));
        self.seen = self.seen.split_off(&window(self.newest));
        self.follow(new.into_iter().filter(|event| event.finished_at.is_none()));
        self.shown.extend(letters.iter().map(|letter| (letter.id, letter.event_id)));
        for (letter, event, entry) in missed {
            self.seen_letters.insert(letter);
            self.shown.insert(letter, event);
            entries.push(entry);
        }
        let oldest = letter_window(self.letter);
        self.seen_letters.retain(|letter| *letter > oldest);
        self.forget_letters();
        entries
    }

    fn follow(&mut self, events: impl Iterator<Item = TailEvent>) {
        self.followed.extend(events.map(|event| (event.id, event)));
        while self.followed.len() > MOST_FOLLOWED {
            self.followed.pop_first();
        }
    }

    /// Forgets the letters that were shown of events that are not followed, but for the newest.
    fn forget_letters(&mut self) {
        let oldest = self.shown.keys().rev().nth(MOST_SHOWN).copied();
        if let Some(oldest) = oldest {
            let followed = &self.followed;
            self.shown.retain(|letter, event| *letter > oldest || followed.contains_key(event));
        }
    }
}

/// Gives the id behind which events are read again.
fn window(newest: EventId) -> EventId {
    EventId(newest.0.saturating_sub(i64::from(LOOK_BACK)))
}

/// Gives the number behind which letters are read again.
fn letter_window(newest: Option<LetterId>) -> LetterId {
    LetterId(newest.map_or(0, |newest| newest.0.saturating_sub(i64::from(LETTERS_BACK))))
}

/// Reads the numbers of the letters that are visible up to the last one that was read.
async fn letters_in_window(
    store: &impl TailStore,
    newest: Option<LetterId>,
) -> Result<Vec<LetterId>, StoreError> {
    match newest {
        Some(newest) => store.letters_between(letter_window(Some(newest)), newest).await,
        None => Ok(Vec::new()),
    }
}

fn entry(event: &TailEvent, kind: TailKind, at: Option<Timestamp>) -> TailEntry {
    TailEntry {
        at,
        kind,
        message: Some(event.message),
        topic: event.topic.clone(),
        event_type: event.event_type.clone(),
        key: event.key.clone(),
        detail: None,
    }
}

fn dead_entry(letter: &DeadLetter) -> TailEntry {
    let message = letter.message.as_ref();
    let by = match &letter.consumer_origin {
        Some(origin) => format!("{}/{}", origin.consumer, origin.handler),
        None => letter.route.clone(),
    };
    TailEntry {
        at: Some(letter.dead_at),
        kind: TailKind::Dead,
        message: message.map(|message| message.id),
        topic: message.map(|message| message.topic.clone()).unwrap_or_default(),
        event_type: message.map(|message| message.event_type.clone()).unwrap_or_default(),
        key: message.and_then(|message| message.key.clone()),
        detail: Some(format!("letter {} by {by}: {}", letter.id, letter.reason)),
    }
}

#[cfg(test)]
mod tests;
