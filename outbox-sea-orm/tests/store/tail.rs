//! Following the events of a store: what is created, confirmed and given up, however much it is.

use crate::acts::World;
use outbox_core::{
    admin::{AdminStore, OperatorNote, Tail, TailEntry, TailKind},
    event::NewEvent,
    testing::store::event,
};
use std::collections::BTreeMap;
use tests::{databases::TempDatabase, on_every_database};

/// More than a look reads again, and more than it reads of new ones.
const MANY: usize = 1_200;

/// Looks until a look has nothing new.
async fn look(tail: &mut Tail, world: &World) -> Vec<TailEntry> {
    let mut all = Vec::new();
    loop {
        let entries = tail.look(&world.outbox).await.unwrap();
        if entries.is_empty() {
            return all;
        }
        all.extend(entries);
    }
}

/// Counts the entries by their kind; each is of another message.
fn counts(entries: &[TailEntry]) -> [usize; 3] {
    [TailKind::Created, TailKind::Confirmed, TailKind::Dead].map(|kind| {
        let mut messages = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.kind == kind) {
            *messages.entry(entry.message).or_insert(0) += 1;
        }
        assert!(messages.values().all(|times| *times == 1), "{kind:?} twice: {entries:?}");
        messages.len()
    })
}

impl World {
    /// Appends so many events of one key, which are all in one partition.
    async fn append(&self, count: usize) {
        let events: Vec<NewEvent> = (0..count).map(|_| event("order-1")).collect();
        let db = self.outbox.connection();
        for chunk in events.chunks(400) {
            self.outbox.schema().append(db, "/shop", chunk).await.unwrap();
        }
    }
}

on_every_database! {
    async fn more_archived_events_than_a_look_reads_are_all_followed(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let mut tail = Tail::start(&world.outbox).await.unwrap();
        for round in 1..=2 {
            world.archive("order-1", MANY).await;
            let seen = look(&mut tail, &world).await;
            assert_eq!(counts(&seen), [MANY, MANY, 0], "round {round}");
        }
    }

    async fn more_waiting_events_of_one_partition_than_a_look_reads_are_all_followed(
        temp: &TempDatabase
    ) {
        let world = World::open(temp).await;
        let mut tail = Tail::start(&world.outbox).await.unwrap();
        for round in 1..=2 {
            world.append(MANY).await;
            assert_eq!(counts(&look(&mut tail, &world).await), [MANY, 0, 0], "round {round}");
        }
        // Without an archive their rows are gone when they are confirmed.
        world.run("DELETE FROM outbox_events").await;
        assert_eq!(counts(&look(&mut tail, &world).await), [0, 2 * MANY, 0]);
    }

    async fn of_more_given_up_events_than_a_look_reads_none_is_confirmed(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let mut tail = Tail::start(&world.outbox).await.unwrap();
        world.append(MANY).await;
        assert_eq!(counts(&look(&mut tail, &world).await), [MANY, 0, 0]);
        assert_eq!(world.bury(&[]).await.len(), MANY);
        assert_eq!(counts(&look(&mut tail, &world).await), [0, 0, MANY]);
    }

    async fn an_event_whose_letter_is_resolved_between_two_looks_is_dead_all_the_same(
        temp: &TempDatabase
    ) {
        let world = World::open(temp).await;
        let mut tail = Tail::start(&world.outbox).await.unwrap();
        world.append(1).await;
        assert_eq!(counts(&look(&mut tail, &world).await), [1, 0, 0]);
        let letters = world.bury(&[]).await;
        let note = OperatorNote::new("ann", "not wanted");
        assert_eq!(world.outbox.discard(&letters, &note).await.unwrap(), letters);
        let seen = look(&mut tail, &world).await;
        assert_eq!(counts(&seen), [0, 0, 1]);
        let detail = seen[0].detail.as_deref().unwrap();
        assert!(detail.starts_with(&format!("letter {} by billing: ", letters[0])), "{detail}");
    }

    async fn an_event_that_was_redriven_between_two_looks_is_followed_to_its_confirmation(
        temp: &TempDatabase
    ) {
        let world = World::open(temp).await;
        let mut tail = Tail::start(&world.outbox).await.unwrap();
        world.append(1).await;
        assert_eq!(counts(&look(&mut tail, &world).await), [1, 0, 0]);
        let letters = world.bury(&[]).await;
        let note = OperatorNote::new("ann", "the bank is back");
        assert_eq!(world.outbox.redrive(&letters, &note).await.unwrap(), letters);
        assert_eq!(counts(&look(&mut tail, &world).await), [0, 0, 1]);
        world.run("DELETE FROM outbox_events").await;
        assert_eq!(counts(&look(&mut tail, &world).await), [0, 1, 0]);
    }
}
