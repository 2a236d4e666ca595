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
const LOOK_BACK: i64 = 1_000;
/// Events that are followed until they have ended, some 4 MB; of more, the oldest are given up.
const MOST_FOLLOWED: usize = 10_000;
/// Events of one partition, and dead letters, that one look reads.
const MOST_READ: u32 = 500;

/// An event in the outbox or in the archive, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailEvent {
    /// Its partition.
    pub partition: PartitionNo,
    /// Its place in the order.
    pub id: EventId,
    /// The message.
    pub message: MessageId,
    /// Its topic.
    pub topic: String,
    /// Its type.
    pub event_type: String,
    /// Its key.
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
}

/// What happened to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TailKind {
    /// It was saved.
    Created,
    /// All its routes have confirmed it.
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
    /// Its topic; empty if unknown.
    pub topic: String,
    /// Its type; empty if unknown.
    pub event_type: String,
    /// Its key.
    pub key: Option<String>,
    /// Of a dead letter its number, who gave it up, and why.
    pub detail: Option<String>,
}

/// Follows the events of one store.
///
/// An event that is created and confirmed between two looks leaves a row in the archive only; without
/// the archive it is not seen. One whose transaction commits when a thousand later ids are visible is
/// not seen either.
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
    letter: Option<LetterId>,
    /// Ids in the window of looking back that were seen.
    seen: BTreeSet<EventId>,
    /// Events that wait.
    followed: BTreeMap<EventId, TailEvent>,
    /// Those of them that a route has given up: their end is no confirmation.
    given_up: BTreeSet<EventId>,
}

impl Tail {
    /// Begins behind what there is.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be asked.
    pub async fn start(store: &(impl AdminStore + TailStore)) -> Result<Self, StoreError> {
        let start = store.newest_event().await?;
        let letter = store.newest_letter().await?;
        let mut tail = Self {
            start,
            newest: start,
            letter,
            seen: BTreeSet::new(),
            followed: BTreeMap::new(),
            given_up: BTreeSet::new(),
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
        let from = EventId(self.newest.0.saturating_sub(LOOK_BACK).max(self.start.0));
        let read = store.events_after(from, MOST_READ).await?;
        let followed: Vec<_> =
            self.followed.values().map(|event| (event.partition, event.id)).collect();
        let waiting: BTreeSet<EventId> =
            store.still_waiting(&followed).await?.into_iter().collect();
        // Last: the transaction that ends an event writes its letter too.
        let letters = store.dead_letters(&DeadLetterFilter::all(), self.letter, MOST_READ).await?;
        Ok(self.note(read, &waiting, &letters))
    }

    /// Notes what a look has read; pure.
    fn note(
        &mut self,
        read: TailRead,
        waiting: &BTreeSet<EventId>,
        letters: &[DeadLetter],
    ) -> Vec<TailEntry> {
        let mut entries = Vec::new();
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
        let by_routes = letters.iter().filter(|letter| letter.consumer_origin.is_none());
        self.given_up.extend(by_routes.map(|letter| letter.event_id));
        for event in ended.iter().filter_map(|id| self.followed.remove(id)) {
            if !self.given_up.contains(&event.id) {
                let at = archived.get(&event.id).copied();
                entries.push(entry(&event, TailKind::Confirmed, at));
            }
        }
        for event in new.iter().filter(|event| event.finished_at.is_some()) {
            entries.push(entry(event, TailKind::Confirmed, event.finished_at));
        }
        entries.extend(letters.iter().map(dead_entry));
        self.letter = letters.last().map(|letter| letter.id).or(self.letter);
        self.newest = read.complete_to.map_or(newest, |to| newest.min(to.max(self.newest)));
        let window = self.newest.0.saturating_sub(LOOK_BACK);
        self.seen = self.seen.split_off(&EventId(window));
        self.follow(new.into_iter().filter(|event| event.finished_at.is_none()));
        self.given_up.retain(|id| self.followed.contains_key(id));
        entries
    }

    fn follow(&mut self, events: impl Iterator<Item = TailEvent>) {
        self.followed.extend(events.map(|event| (event.id, event)));
        while self.followed.len() > MOST_FOLLOWED {
            self.followed.pop_first();
        }
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
