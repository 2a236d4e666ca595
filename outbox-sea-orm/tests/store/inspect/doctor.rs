//! The checks of an outbox and its database.

use super::*;
use outbox_core::admin::{DoctorStore, Finding, Severity};
use outbox_core::event::RelayId;
use outbox_sea_orm::{StoreOptions, open_relay_store};
use sea_orm::ConnectOptions;
use tests::databases::Database;

async fn findings(outbox: &Outbox) -> Vec<Finding> {
    let findings = outbox.findings().await.unwrap();
    let severities: Vec<Severity> = findings.iter().map(|finding| finding.severity).collect();
    assert!(severities.is_sorted_by(|a, b| a >= b), "the worst first: {severities:?}");
    for Finding { check, severity, what, to_do, seen_by } in &findings {
        assert!(!what.starts_with("this could not be checked"), "{check}: {what}");
        assert!(!what.is_empty() && !seen_by.is_empty(), "{check}");
        assert_eq!(to_do.is_empty(), *severity == Severity::Ok, "{check}: {what}");
    }
    findings
}

/// Gives the severity of a check, with what it found.
fn of<'a>(findings: &'a [Finding], check: &str) -> (Severity, &'a str) {
    let found = findings.iter().find(|finding| finding.check == check);
    let found = found.unwrap_or_else(|| panic!("{check} is not among {findings:?}"));
    (found.severity, &found.what)
}

on_every_database! {
    async fn a_fresh_outbox_lacks_a_relay_and_nothing_else(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let found = findings(&outbox).await;
        assert_eq!(of(&found, "partitions-owned"), (Severity::Critical, "no relay is live: no event leaves this outbox"));
        for check in ["schema-version", "partition-balance", "relay-routes", "one-service", "deferred-handlers", "saga-definitions", "dead-letters", "inbox-retention"] {
            assert_eq!(of(&found, check).0, Severity::Ok, "{check}");
        }
        // What the server is set to is not the test's.
        assert!(found.iter().any(|finding| finding.check == "durability"));
        assert!(found.iter().any(|finding| finding.check == "clock-skew" && finding.severity <= Severity::Info));
        let on_server = temp.database() != Database::Sqlite;
        assert_eq!(found.iter().any(|finding| finding.check == "role-rights"), on_server);
        assert_eq!(found.iter().any(|finding| finding.check == "open-transaction"), on_server);
        assert_eq!(found.iter().any(|finding| finding.check == "dead-rows"), temp.database() == Database::Postgres);

        let relay = refusing_relay(&outbox, 9).await;
        wait_until(SOON, "the relay owns all partitions", async || {
            of(&findings(&outbox).await, "partitions-owned").0 == Severity::Ok
        })
        .await;
        relay.shutdown(SOON).await.unwrap();
    }

    async fn an_isolation_at_which_those_that_save_events_wait_for_each_other_is_found(temp: &TempDatabase) {
        let db = temp.connect_with(|options| _ = options.max_connections(1)).await;
        installed(temp).await;
        let outbox = Outbox::builder(db.clone()).source("/shop").build().await.unwrap();
        if temp.database() != Database::MariaDb {
            assert!(findings(&outbox).await.iter().all(|finding| finding.check != "default-isolation"));
            return;
        }
        for (level, found) in [
            ("READ COMMITTED", (Severity::Ok, "transactions begin at READ-COMMITTED")),
            ("REPEATABLE READ", (Severity::Info, "transactions begin at REPEATABLE-READ: one that has saved an event and stays open may lock the gap beside its row, and others that save events wait for its end, 7 s at most")),
            ("SERIALIZABLE", (Severity::Info, "transactions begin at SERIALIZABLE: one that has saved an event and stays open may lock the gap beside its row, and others that save events wait for its end, 7 s at most")),
        ] {
            // The only connection of the application's pool, as its options would set it.
            for set in [&*format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}"), "SET SESSION innodb_lock_wait_timeout = 7"] {
                db.execute_unprepared(set).await.unwrap();
            }
            assert_eq!(of(&findings(&outbox).await, "default-isolation"), found);
        }
    }

    async fn what_is_overlooked_or_handled_by_nobody_is_found(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        defer(&outbox, "9", Some(SOON)).await;
        emit(&outbox, 7, EnqueueOptions::new()).await;
        let relay = refusing_relay(&outbox, 1).await;
        wait_until(SOON, "a dead letter is written", async || outbox.overview().await.unwrap().events.dead == 1).await;
        relay.shutdown(SOON).await.unwrap();
        let saga = stuck_saga(&outbox).await;
        let fifteen_days = 15 * 86_400_000_000_i64;
        run(&outbox, &format!("UPDATE outbox_dead_letters SET dead_at = dead_at - {fifteen_days}"), Vec::new()).await;
        run(&outbox, &format!("UPDATE outbox_deferred SET stored_at = stored_at - {fifteen_days}"), Vec::new()).await;
        run(&outbox, "UPDATE outbox_sagas SET state = 'running', due_at = 1 WHERE saga_id = ?", vec![Value::from(*saga.as_uuid())]).await;
        let found = findings(&outbox).await;
        assert_eq!(of(&found, "dead-letters"), (Severity::Warning, "1 dead letters are open, the oldest for 15 days"));
        assert_eq!(of(&found, "deferred-handlers"), (Severity::Warning, "deliveries are deferred for consumer `mail`, of which no instance is running"));
        let (severity, what) = of(&found, "saga-definitions");
        assert!(severity == Severity::Critical && what.starts_with("sagas `place-order` version 2 are due for over a minute"), "{what}");
        let (severity, what) = of(&found, "inbox-retention");
        assert!(severity == Severity::Warning && what.starts_with("a delivery is deferred for 15 days, and the inbox remembers messages for 14 days"), "{what}");
    }

    async fn relays_and_services_that_disagree_are_found(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let store = open_relay_store(outbox.connection(), outbox.schema(), &StoreOptions::new(SOON)).await.unwrap();
        for routes in [1, 2] {
            store.leases.renew(&RelayId::generate(), routes, Duration::from_secs(600)).await.unwrap();
        }
        let events = [outbox_core::testing::store::event("a")];
        outbox.schema().append(outbox.connection(), "/other\u{1b}[2J", &events).await.unwrap();
        let events: Vec<_> = (0..1_100).map(|_| outbox_core::testing::store::event("one")).collect();
        outbox.schema().append(outbox.connection(), "/shop", &events).await.unwrap();
        run(&outbox, "UPDATE outbox_meta SET version = 99", Vec::new()).await;
        let found = findings(&outbox).await;
        assert_eq!(of(&found, "relay-routes"), (Severity::Warning, "live relays have 2 different sets of routes: only one set works at a time"));
        assert_eq!(of(&found, "one-service"), (Severity::Warning, "the outbox belongs to `/shop`, and has events of `/other [2J`"));
        assert_eq!(of(&found, "schema-version").0, Severity::Info);
        assert_eq!(of(&found, "partitions-owned").0, Severity::Warning);
        let (severity, what) = of(&found, "partition-balance");
        assert!(severity == Severity::Info && (what.contains("has 1100") || what.contains("has 1101")), "{what}");
    }

    async fn the_rights_of_an_application_are_told(temp: &TempDatabase) {
        installed(temp).await;
        if temp.database() == Database::Sqlite {
            return;
        }
        let mut options = ConnectOptions::new(temp.restricted_url().await);
        options.sqlx_logging(false).max_connections(2);
        let db = sea_orm::Database::connect(options).await.unwrap();
        let outbox = Outbox::builder(db).source("/shop").build().await.unwrap();
        // MariaDB shows open transactions to an administrator alone.
        assert_eq!(of(&outbox.findings().await.unwrap(), "role-rights").0, Severity::Ok);
        if temp.database() == Database::Postgres {
            let admin = temp.connect().await;
            admin.execute_unprepared("REVOKE DELETE ON outbox_events FROM PUBLIC").await.unwrap();
            let role = format!("{}_app", temp.name());
            admin.execute_unprepared(&format!("REVOKE DELETE, UPDATE ON outbox_events FROM {role}")).await.unwrap();
            let found = findings(&outbox).await;
            let (severity, what) = of(&found, "role-rights");
            assert_eq!((severity, what), (Severity::Critical, "the role of this program has no right to UPDATE, DELETE on \"outbox_events\""));
        }
    }
}
