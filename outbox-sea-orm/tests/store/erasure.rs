//! The erasure of what is stored under a key.

use crate::{
    acts::{World, received},
    outbox::{LEASE, read_all},
};
use outbox_core::{
    admin::{AdminStore, AuditOutcome, DeadLetterFilter, EraseStore, OperatorNote, TableErasure},
    event::LetterId,
    outbox::{
        ClaimQuery, ConsumerStore, DeferredDelivery, History, RetrierStore, Store, StoredDelivery,
    },
    testing::store::event,
};
use outbox_sea_orm::{DeliverAt, Outbox, OutboxError, Retention, StoreOptions, open_relay_store};
use std::{sync::Arc, time::Duration};
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
};

const KEY: &str = "customer:7";
/// Another one with the same beginning.
const OTHER: &str = "customer:77";
/// More than one read gives, and more than one transaction deletes.
const MANY: usize = 1_100;

fn ann() -> OperatorNote {
    OperatorNote::new("ann", "the customer asked for it")
}

/// Gives what is erased and left, by the tables' names without `outbox_`.
fn shown(tables: &[TableErasure]) -> Vec<(&str, u64, u64)> {
    let row = |table: &'_ TableErasure| (table.erased, table.left.count);
    let names = tables.iter().map(|table| table.table.strip_prefix("outbox_").unwrap());
    names.zip(tables.iter().map(row)).map(|(name, (erased, left))| (name, erased, left)).collect()
}

impl World {
    /// Archives so many events of a key.
    pub(crate) async fn archive(&self, key: &str, count: usize) {
        let keep = StoreOptions::new(LEASE).retention(Retention::Keep(Duration::from_hours(1)));
        let (db, schema) = (self.outbox.connection(), self.outbox.schema());
        let store = open_relay_store(db, schema, &keep).await.unwrap();
        let events: Vec<_> = (0..count).map(|_| event(key)).collect();
        for chunk in events.chunks(500) {
            schema.append(db, "/shop", chunk).await.unwrap();
        }
        let places: Vec<_> =
            read_all(&*store.reader).await.iter().map(|e| (e.partition, e.id)).collect();
        for chunk in places.chunks(200) {
            store.settler.finish(&self.fence, chunk).await.unwrap();
        }
    }

    /// Defers deliveries of a key, the first due now, the others behind it.
    async fn defer(&self, key: &str, count: usize) {
        for n in 0..count {
            let message = received(key);
            let due_in = (n == 0).then_some(Duration::ZERO);
            let history = History::default();
            let delivery = DeferredDelivery {
                consumer: "mail",
                handler: "h",
                message: &message,
                due_in,
                history,
            };
            let tx = Store::begin(&self.outbox).await.unwrap();
            assert!(self.outbox.defer(&tx, &delivery).await.unwrap());
            self.outbox.commit(tx).await.unwrap();
        }
    }

    async fn rows_of(&self, table: &str, key: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM outbox_{table} WHERE message_key = '{key}'"))
            .await
    }
}

/// What is stored of a key, and of another one with the same beginning.
struct Filled {
    /// The letter of the key that was discarded before.
    resolved: LetterId,
    /// The deliveries that an instance runs: the first of each key.
    claimed: Vec<StoredDelivery>,
}

/// Stores rows of both keys in every table.
async fn filled(world: &World) -> Filled {
    let (outbox, schema) = (&world.outbox, world.outbox.schema());
    world.archive(KEY, MANY).await;
    world.archive(OTHER, 2).await;
    for key in [KEY, OTHER] {
        let later = [(event(key), DeliverAt::In(Duration::from_hours(1)))];
        schema.schedule(outbox.connection(), "/shop", &later).await.unwrap();
    }
    assert_eq!(world.bury(&[event(KEY), event(KEY), event(OTHER)]).await.len(), 3);
    let of_key = outbox.dead_letters(&DeadLetterFilter::all().key(KEY), None, 10).await.unwrap();
    let resolved = of_key[0].id;
    outbox.discard(&[resolved], &OperatorNote::new("bob", "not wanted")).await.unwrap();
    world.defer(KEY, 3).await;
    world.defer(OTHER, 2).await;
    let (handlers, me) = ([Arc::from("h")], Arc::from("me"));
    let query =
        ClaimQuery { consumer: "mail", handlers: &handlers, by: &me, lease: LEASE, limit: 10 };
    let claimed = outbox.claim(&query).await.unwrap();
    assert_eq!(claimed.len(), 2, "the first of each key");
    for key in [KEY, OTHER] {
        let responded = outbox.respond_once(key, async |_| address());
        assert!(responded.await.unwrap().is_first());
    }
    let waiting = [event(KEY), event(OTHER)];
    schema.append(outbox.connection(), "/shop", &waiting).await.unwrap();
    Filled { resolved, claimed }
}

fn address() -> Result<String, OutboxError> {
    Ok("7 Elm Street".to_owned())
}

/// Lets a statement run whenever rows of a table are deleted: as a relay or consumer that moves
/// rows at just that moment.
async fn when_deleted(world: &World, database: Database, table: &str, statement: &str) {
    let begin = format!("CREATE TRIGGER then_{table} AFTER DELETE ON outbox_{table} FOR EACH ROW");
    match database {
        Database::Sqlite => world.run(&format!("{begin} BEGIN {statement}; END")).await,
        Database::MariaDb => world.run(&format!("{begin} {statement}")).await,
        Database::Postgres => {
            let body = format!("BEGIN {statement}; RETURN NULL; END");
            let function = format!("CREATE FUNCTION then_{table}() RETURNS trigger");
            world.run(&format!("{function} LANGUAGE plpgsql AS $$ {body} $$")).await;
            world.run(&format!("{begin} EXECUTE FUNCTION then_{table}()")).await;
        }
    }
}

/// Checks that the content of the key's letters is deleted, and that who resolved them is not.
async fn letters_are_empty(outbox: &Outbox, resolved: LetterId) {
    let every = DeadLetterFilter { include_resolved: true, ..DeadLetterFilter::all() };
    let kept = outbox.dead_letters(&every, None, 10).await.unwrap();
    assert_eq!(kept.len(), 3);
    for letter in kept {
        let message = letter.message.unwrap();
        let is_of_key = message.key.as_deref() == Some(KEY);
        assert_eq!(message.payload.is_empty(), is_of_key);
        let resolver = if letter.id == resolved { "bob" } else { "ann" };
        let by = letter.resolution.map(|resolution| resolution.by);
        assert_eq!(by.as_deref(), is_of_key.then_some(resolver));
    }
}

on_every_database! {
    async fn a_key_is_erased_wherever_it_is_and_what_is_in_use_is_left_and_told(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let outbox = &world.outbox;
        let Filled { resolved, claimed } = filled(&world).await;
        let expected = [
            ("scheduled", 1, 0),
            ("deferred", 2, 1),
            ("dead_letters", 2, 0),
            ("archive", MANY as u64, 0),
            ("sagas", 0, 0),
            ("responses", 1, 0),
            ("events", 0, 1),
        ];
        let plan = outbox.plan_erasure(KEY).await.unwrap();
        assert_eq!((plan.key.as_str(), shown(&plan.tables)), (KEY, expected.to_vec()));
        assert!(plan.notes[0].starts_with("1 events still wait"), "{:?}", plan.notes);
        assert_eq!(usize::try_from(world.rows_of("archive", KEY).await), Ok(MANY), "a plan changes nothing");

        assert_eq!(shown(&outbox.erase(KEY, &ann()).await.unwrap()), expected);
        for (table, left, of_other) in [("archive", 0, 2), ("scheduled", 0, 1), ("deferred", 1, 2), ("events", 1, 1)] {
            let rows = (world.rows_of(table, KEY).await, world.rows_of(table, OTHER).await);
            assert_eq!(rows, (left, of_other), "{table}");
        }
        assert_eq!(world.number("SELECT count(*) FROM outbox_responses").await, 1);
        letters_are_empty(outbox, resolved).await;
        let again = outbox.respond_once(KEY, async |_| address()).await;
        assert!(matches!(again.unwrap_err(), OutboxError::Duplicate { .. }), "the work is not done again");

        // When what was in use has ended, nothing of it is left.
        for delivery in &claimed {
            let tx = Store::begin(outbox).await.unwrap();
            assert!(outbox.finish(&tx, &delivery.claim).await.unwrap());
            outbox.commit(tx).await.unwrap();
        }
        let rest = outbox.erase(KEY, &ann()).await.unwrap();
        let is_quiet = |(table, erased, left): &(&str, u64, u64)| *erased == 0 && *left == u64::from(*table == "events");
        assert!(shown(&rest).iter().all(is_quiet), "{rest:?}");
        assert_eq!((world.rows_of("deferred", KEY).await, world.rows_of("deferred", OTHER).await), (0, 1));
        let audit = world.audit().await;
        let erasures = audit.iter().filter(|row| row.act == "erase");
        let erasures: Vec<_> = erasures.map(|row| (row.target.as_str(), row.done, row.outcome)).collect();
        let (target, done) = ("key \"customer:7\"", AuditOutcome::Done);
        assert_eq!(erasures, [(target, 0, done), (target, MANY as u64 + 6, done)]);
    }

    async fn a_row_that_moves_while_an_erasure_walks_is_erased_or_told(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let (outbox, schema) = (&world.outbox, world.outbox.schema());
        // Rows that get the key when they come to their table.
        world.archive("moves", 1).await;
        assert_eq!(world.bury(&[event("moves")]).await.len(), 1);
        let later = [(event(KEY), DeliverAt::In(Duration::from_hours(1)))];
        schema.schedule(outbox.connection(), "/shop", &later).await.unwrap();
        world.defer(KEY, 2).await;
        let (handlers, me) = ([Arc::from("h")], Arc::from("me"));
        let query =
            ClaimQuery { consumer: "mail", handlers: &handlers, by: &me, lease: LEASE, limit: 10 };
        assert_eq!(outbox.claim(&query).await.unwrap().len(), 1, "the other waits behind it");
        schema.append(outbox.connection(), "/shop", &[event(KEY)]).await.unwrap();
        let comes = |table: &str| {
            format!("UPDATE outbox_{table} SET message_key = '{KEY}' WHERE message_key = 'moves'")
        };
        let goes = |table: &str| format!("DELETE FROM outbox_{table} WHERE message_key = '{KEY}'");
        for (table, moves) in [
            // A scheduled event is due, published and archived.
            ("scheduled", comes("archive")),
            // A deferred delivery is given up.
            ("deferred", comes("dead_letters")),
            // The event that waits is published, and archived where the walk has passed.
            ("archive", goes("events")),
            // So does the delivery that an instance runs.
            ("events", goes("deferred")),
        ] {
            when_deleted(&world, temp.database(), table, &moves).await;
        }
        let erased = outbox.erase(KEY, &ann()).await.unwrap();
        let expected = [
            ("scheduled", 1, 0),
            ("deferred", 1, 1),
            ("dead_letters", 1, 0),
            ("archive", 1, 0),
            ("sagas", 0, 0),
            ("responses", 0, 0),
            ("events", 0, 1),
        ];
        assert_eq!(shown(&erased), expected);
    }

    async fn a_delivery_that_an_instance_puts_back_during_the_walk_is_told_as_left(temp: &TempDatabase) {
        // There a trigger may not change the table that it is on.
        if temp.database() == Database::MariaDb {
            return;
        }
        let world = World::open(temp).await;
        world.defer(KEY, 2).await;
        world.run("UPDATE outbox_deferred SET claimed_by = 'me', claimed_until = 4000000000000000 WHERE due_at IS NOT NULL").await;
        let puts_back = "UPDATE outbox_deferred SET claimed_by = NULL, claimed_until = NULL WHERE claimed_until IS NOT NULL";
        when_deleted(&world, temp.database(), "deferred", puts_back).await;
        let erased = world.outbox.erase(KEY, &ann()).await.unwrap();
        assert!(shown(&erased).contains(&("deferred", 1, 1)), "{erased:?}");
        assert_eq!(world.rows_of("deferred", KEY).await, 1);
    }

    async fn what_waits_behind_an_erased_delivery_of_its_order_is_due(temp: &TempDatabase) {
        let world = World::open(temp).await;
        world.defer(KEY, 2).await;
        // Two keys with one hash, as rarely as that may be.
        world.run("UPDATE outbox_deferred SET message_key = 'other' WHERE due_at IS NULL").await;
        assert_eq!(world.outbox.erase(KEY, &ann()).await.unwrap()[1].erased, 1);
        let due = "SELECT count(*) FROM outbox_deferred WHERE due_at IS NOT NULL AND message_key = 'other'";
        assert_eq!(world.number(due).await, 1);
    }
}
