//! The tables: created once, by any number of programs at once, and checked before they are used.

use crate::outbox::{LEASE, installed, owner_of_all, read_all};
use outbox_core::{
    outbox::{InboxKey, StoreError},
    testing::store::{PARTITIONS, event},
};
use outbox_sea_orm::{
    DedupReservation, DeliverAt, Dialect, Namespace, OutboxMigration, Schema, StoreOptions,
    install, next, open_relay_store,
};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use sea_orm_migration::{MigrationTrait, MigratorTrait};
use std::{sync::Arc, time::Duration};
use tests::{databases::TempDatabase, on_every_database};

async fn refused(db: &DatabaseConnection, expected: &str) {
    match Schema::open(db, &Namespace::default()).await {
        Err(StoreError::Mismatch(why)) => assert!(why.contains(expected), "{why}"),
        other => panic!("not refused: {other:?}"),
    }
}

/// Writes the INSERT of a dead letter for each event; `partition` is an expression over its row.
fn letter(prefix: &str, origin: &str, partition: &str, route: &str) -> String {
    format!(
        "INSERT INTO {prefix}outbox_dead_letters (origin, partition_no, event_id, message_id, source, topic, event_type, \
         event_version, content_type, payload, headers, created_at, route, reason, attempts, errors, parks, dead_at) \
         SELECT '{origin}', {partition}, event_id, message_id, source, topic, event_type, event_version, content_type, \
         payload, headers, created_at, '{route}', 'rejected', 1, '[]', FALSE, created_at FROM {prefix}outbox_events"
    )
}

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let shop = Namespace::new("shop").unwrap();
        OutboxMigration::all(Namespace::default(), PARTITIONS)
            .into_iter()
            .chain(OutboxMigration::all(shop, 2))
            .collect()
    }
}

on_every_database! {
    async fn tables_may_be_made_again_and_by_many_at_once(temp: &TempDatabase) {
        let namespace = Namespace::new("shop").unwrap();
        // As many programs, each with a pool of its own.
        let mut programs = Vec::new();
        for _ in 0..4 {
            programs.push(temp.connect().await);
        }
        let installs = programs.iter().map(|db| install(db, &namespace, 7));
        for done in futures_util::future::join_all(installs).await {
            done.unwrap();
        }
        install(&programs[0], &namespace, 7).await.unwrap();
        assert_eq!(Schema::open(&programs[0], &namespace).await.unwrap().partitions(), 7);
    }

    async fn another_number_of_partitions_is_refused(temp: &TempDatabase) {
        let db = temp.connect().await;
        let namespace = Namespace::default();
        let schema = installed(&db, &namespace).await;
        for n in [0, PARTITIONS + 1, PARTITIONS - 1, u16::MAX] {
            let why = install(&db, &namespace, n).await.unwrap_err().to_string();
            assert!(why.contains("partitions"), "{why}");
        }
        assert_eq!(Schema::open(&db, &namespace).await.unwrap().partitions(), PARTITIONS);

        // A running program sees a later change too.
        let store = open_relay_store(&db, &schema, &StoreOptions::new(LEASE)).await.unwrap();
        db.execute_unprepared("UPDATE outbox_meta SET partitions = 5").await.unwrap();
        assert!(matches!(store.leases.info().await, Err(StoreError::Mismatch(_))));
        refused(&db, "5 partitions").await;
    }

    async fn missing_and_old_tables_are_refused_with_what_to_do(temp: &TempDatabase) {
        let db = temp.connect().await;
        refused(&db, "run the migration").await;
        let schema = installed(&db, &Namespace::default()).await;
        db.execute_unprepared("UPDATE outbox_meta SET version = 0").await.unwrap();
        refused(&db, "run the migration").await;
        install(&db, &Namespace::default(), PARTITIONS).await.unwrap();
        // A later version only adds.
        db.execute_unprepared("UPDATE outbox_meta SET version = 99").await.unwrap();
        Schema::open(&db, &Namespace::default()).await.unwrap();
        db.execute_unprepared("DROP TABLE outbox_partitions").await.unwrap();
        refused(&db, "run the migration").await;
        drop(schema);
    }

    async fn tables_with_the_names_of_a_former_numbering_are_refused_and_left_as_they_are(temp: &TempDatabase) {
        let db = temp.connect().await;
        installed(&db, &Namespace::default()).await;
        db.execute_unprepared("ALTER TABLE outbox_archive RENAME TO outbox_done").await.unwrap();
        for version in [1, 11] {
            let sql = format!("UPDATE outbox_meta SET version = {version}");
            db.execute_unprepared(&sql).await.unwrap();
            refused(&db, "docs/renames.md").await;
            let error = install(&db, &Namespace::default(), PARTITIONS).await.unwrap_err().to_string();
            assert!(error.contains("docs/renames.md") && error.contains(&format!("version {version}")), "{error}");
        }
    }

    async fn tables_of_an_installation_that_ended_half_way_are_completed_with_what_is_in_them(temp: &TempDatabase) {
        let db = temp.connect().await;
        let schema = installed(&db, &Namespace::default()).await;
        schema.append(&db, "/shop", &[event("a")]).await.unwrap();
        db.execute_unprepared("DROP TABLE outbox_deferred").await.unwrap();
        db.execute_unprepared("DROP TABLE outbox_unparked").await.unwrap();
        db.execute_unprepared("UPDATE outbox_meta SET version = 0").await.unwrap();
        refused(&db, "run the migration").await;
        install(&db, &Namespace::default(), PARTITIONS).await.unwrap();
        let schema = Schema::open(&db, &Namespace::default()).await.unwrap();
        let (store, _) = owner_of_all(&db, &schema, LEASE).await;
        assert_eq!(read_all(&*store.reader).await.len(), 1);
        db.execute_unprepared("DELETE FROM outbox_deferred").await.unwrap();
    }

    async fn columns_of_a_later_version_are_added_to_what_is_there_and_an_earlier_program_goes_on(temp: &TempDatabase) {
        let db = temp.connect().await;
        let namespace = Namespace::new("shop").unwrap();
        let schema = installed(&db, &namespace).await;
        let of_table = if schema.dialect() == Dialect::MariaDb { " ON shop_outbox_dead_letters" } else { "" };
        let count = async |condition: &str| {
            let sql = format!("SELECT COUNT(*) FROM shop_outbox_dead_letters WHERE {condition}");
            let query = Statement::from_string(db.get_database_backend(), sql);
            db.query_one_raw(query).await.map(|row| row.unwrap().try_get_by_index::<i64>(0).unwrap())
        };
        let earlier = |n: u32| letter("shop_", "relay", "partition_no", &format!("r{n}"));
        schema.append(&db, "/shop", &[event("a")]).await.unwrap();
        db.execute_unprepared(&earlier(1)).await.unwrap();
        assert!(count("next_note IS NULL").await.is_err(), "the column is not there");
        for _ in 0..2 {
            next::install(&db, &namespace, PARTITIONS).await.unwrap();
            // As an upgrade leaves the tables that ended half-way: the next run completes it.
            let begun = format!("UPDATE shop_outbox_meta SET version = {}", Schema::VERSION);
            db.execute_unprepared(&begun).await.unwrap();
        }
        next::install(&db, &namespace, PARTITIONS).await.unwrap();
        db.execute_unprepared(&earlier(2)).await.unwrap();
        assert_eq!(count("next_note IS NULL").await.unwrap(), 2);
        db.execute_unprepared(&format!("DROP INDEX shop_outbox_letters_next{of_table}")).await.expect("it is there");
    }

    async fn namespaces_do_not_see_each_other(temp: &TempDatabase) {
        let db = temp.connect().await;
        let message = event("a").message_id;
        let mut seen = Vec::new();
        for namespace in [Namespace::default(), Namespace::new("shop").unwrap(), Namespace::new("Select").unwrap()] {
            let schema = installed(&db, &namespace).await;
            let (store, fence) = owner_of_all(&db, &schema, LEASE).await;
            let mut mine = event("a");
            mine.payload = namespace.to_string().into();
            schema.append(&db, "/shop", &[mine]).await.unwrap();
            schema.schedule(&db, "/shop", &[(event("a"), DeliverAt::In(Duration::ZERO))]).await.unwrap();
            let key = InboxKey { consumer: "c", handler: "h", source: "/shop", message_id: message };
            assert!(schema.receive(&db, key).await.unwrap());
            let claim = DedupReservation { key: "k".into(), message_id: event("a").message_id, payload_hash: 1, keep: LEASE };
            assert_eq!(schema.reserve_dedup_keys(&db, &[claim]).await.unwrap(), None);
            seen.push((namespace, store, fence));
        }
        for (namespace, store, fence) in &seen {
            let renewal = store.leases.renew(&fence.relay, 1, LEASE).await.unwrap();
            assert_eq!(renewal.view.relays.len(), 1);
            let events = read_all(&*store.reader).await;
            let payloads: Vec<_> = events.iter().map(|e| e.body.as_ref().unwrap().payload.clone()).collect();
            assert_eq!(payloads, [namespace.to_string()]);
            assert_eq!(store.janitor.promote_scheduled(fence, 10).await.unwrap(), 1);
            let events = read_all(&*store.reader).await;
            assert_eq!(events.len(), 2);
            let places: Vec<_> = events.iter().map(|e| (e.partition, e.id)).collect();
            assert_eq!(store.settler.finish(fence, &places).await.unwrap().deleted, 2);
            assert!(read_all(&*store.reader).await.is_empty());
        }
    }

    async fn the_migration_stands_among_the_users_own(temp: &TempDatabase) {
        let db = temp.connect().await;
        Migrator::up(&db, None).await.unwrap();
        Migrator::up(&db, None).await.unwrap();
        assert_eq!(Schema::open(&db, &Namespace::default()).await.unwrap().partitions(), PARTITIONS);
        assert_eq!(Schema::open(&db, &Namespace::new("shop").unwrap()).await.unwrap().partitions(), 2);
        // What was made by one is known to the other.
        install(&db, &Namespace::default(), PARTITIONS).await.unwrap();
        Migrator::down(&db, Some(Schema::VERSION.unsigned_abs())).await.unwrap();
        assert!(Schema::open(&db, &Namespace::new("shop").unwrap()).await.is_err());
        Schema::open(&db, &Namespace::default()).await.unwrap();
        Migrator::down(&db, None).await.unwrap();
        refused(&db, "run the migration").await;
    }

    async fn the_view_shows_what_waits_and_what_is_done(temp: &TempDatabase) {
        let db = temp.connect().await;
        let schema = installed(&db, &Namespace::default()).await;
        let keep = outbox_sea_orm::Retention::Keep(Duration::from_hours(1));
        let store = open_relay_store(&db, &schema, &StoreOptions::new(LEASE).retention(keep)).await.unwrap();
        let (_, fence) = owner_of_all(&db, &schema, LEASE).await;
        schema.append(&db, "/shop", &[event("a"), event("b")]).await.unwrap();
        let first = read_all(&*store.reader).await.into_iter().min_by_key(|e| e.id).unwrap();
        store.settler.finish(&fence, &[(first.partition, first.id)]).await.unwrap();
        let query = "SELECT id, status, CASE WHEN created_at < finished_at THEN 'later' \
                     WHEN created_at = finished_at THEN 'later' ELSE 'never' END AS finished, topic, message_key \
                     FROM outbox_view ORDER BY id";
        let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), query)).await.unwrap();
        let row = |row: &sea_orm::QueryResult| -> Vec<String> {
            (1..5).map(|i| row.try_get_by_index::<String>(i).unwrap()).collect()
        };
        let shown: Vec<_> = rows.iter().map(row).collect();
        assert_eq!(shown, [["done", "later", "orders", "a"], ["ready", "never", "orders", "b"]]);
        assert_eq!(rows[0].try_get_by_index::<i64>(0).unwrap(), first.id.0);
    }

    async fn the_tables_reject_states_that_no_transition_leads_to(temp: &TempDatabase) {
        let db = temp.connect().await;
        let schema = installed(&db, &Namespace::default()).await;
        let row = |state: &str, due: &str, attempts: i32| {
            format!(
                "INSERT INTO outbox_retries (partition_no, event_id, route, state, attempts_started, \
                 attempts_finished, due_at, failing_us, errors, redriven) \
                 VALUES (0, 1, 'x', '{state}', 0, {attempts}, {due}, 0, '[]', FALSE)"
            )
        };
        for impossible in [row("ready", "NULL", 0), row("done", "1", 0), row("dead", "1", 0), row("waiting", "1", -1)] {
            assert!(db.execute_unprepared(&impossible).await.is_err(), "{impossible}");
        }
        db.execute_unprepared(&row("waiting", "1", 0)).await.unwrap();
        let deferred = |order_hash: &str, due: &str, finished: i32| {
            format!(
                "INSERT INTO outbox_deferred (consumer, handler, order_hash, message_id, source, topic, event_type, \
                 event_version, content_type, payload, headers, created_at, stored_at, due_at, attempts_started, \
                 attempts_finished, failures, errors) SELECT 'c', 'h', {order_hash}, message_id, source, topic, event_type, \
                 event_version, content_type, payload, headers, created_at, created_at, {due}, 1, {finished}, 1, '[]' \
                 FROM outbox_events"
            )
        };
        schema.append(&db, "/shop", &[event("a")]).await.unwrap();
        for impossible in [deferred("NULL", "NULL", 1), deferred("1", "1", 0)] {
            assert!(db.execute_unprepared(&impossible).await.is_err(), "{impossible}");
        }
        db.execute_unprepared(&deferred("1", "NULL", 1)).await.unwrap();
        assert!(db.execute_unprepared("INSERT INTO outbox_meta (id, version, partitions) VALUES (2, 1, 1)").await.is_err());
        for (origin, partition) in [("relay", "NULL"), ("consumer", "0"), ("other", "0"), ("other", "NULL")] {
            let impossible = letter("", origin, partition, "x");
            assert!(db.execute_unprepared(&impossible).await.is_err(), "{impossible}");
        }
        for (origin, partition) in [("relay", "0"), ("consumer", "NULL")] {
            db.execute_unprepared(&letter("", origin, partition, "x")).await.unwrap();
        }
        drop(Arc::clone(&schema));
    }
}
