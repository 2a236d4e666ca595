//! The ledger that sagas book to, and what must hold of it.

use super::orders::{CRASHING, Coordinating, Order, STUBBORN};
use crate::support::SOON;
use outbox_core::{event::Timestamp, saga::rebuild};
use outbox_sea_orm::{
    prelude::*,
    saga::{Record, SagaAdmin, SagaFilter, SagaState},
};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use std::{collections::BTreeMap, time::Duration};
use tests::{
    databases::TempDatabase,
    processes::{Process, program},
};

/// What all steps book together.
const TOTAL: i64 = 116;
/// A lease whose end a test waits for.
const LEASE_MS: u64 = 1_500;
/// Without a primary key, so that what is booked twice is seen.
const LEDGER: &str = "CREATE TABLE story_ledger (of_order VARCHAR(64) NOT NULL, entry VARCHAR(64) NOT NULL, amount BIGINT NOT NULL)";

/// A database with a ledger and an outbox, and a handle that starts sagas and drives none.
pub(super) struct Ledger {
    pub(super) db: DatabaseConnection,
    pub(super) outbox: Outbox,
    sagas: Sagas,
}

impl Ledger {
    pub(super) async fn open(temp: &TempDatabase) -> Self {
        let db = temp.connect().await;
        let outbox = Outbox::builder(db.clone()).source("story").install().await.unwrap();
        db.execute_unprepared(LEDGER).await.unwrap();
        let sagas =
            Sagas::builder(&outbox).register(super::orders::place_order()).start().await.unwrap();
        sagas.shutdown(SOON).await.unwrap();
        Self { db, outbox, sagas }
    }

    /// Starts the sagas of these orders in one transaction, each of them twice.
    pub(super) async fn start(&self, orders: std::ops::Range<i64>) {
        self.start_with(orders, None).await;
    }

    /// Starts sagas as [`start`](Self::start) does, which lock entities.
    pub(super) async fn start_with(
        &self,
        orders: std::ops::Range<i64>,
        locked_entities: Option<i64>,
    ) {
        let tx = self.outbox.begin().await.unwrap();
        for number in orders {
            let order = || Order { number, steps: 0, locked_entities };
            let start = || self.sagas.start(&tx, order()).correlation(format!("order-{number}"));
            let (first, second) = (start().await.unwrap(), start().await.unwrap());
            assert_eq!((first.id(), second.is_new()), (second.id(), false));
        }
        tx.commit().await.unwrap();
    }

    pub(super) async fn number(&self, sql: &str) -> i64 {
        let row = self
            .db
            .query_one_raw(Statement::from_string(self.db.get_database_backend(), sql))
            .await
            .unwrap();
        row.map_or(0, |row| row.try_get_by_index(0).unwrap())
    }

    /// Waits until each of so many sagas has ended or is stuck.
    pub(super) async fn ended(&self, sagas: i64, within: Duration) {
        let active = "SELECT COUNT(*) FROM outbox_sagas WHERE state IN ('running', 'compensating')";
        let is_over = async || self.number(active).await == 0;
        let over = tests::holds_within(within, is_over).await;
        assert!(over, "{} sagas have not ended within {within:?}", self.number(active).await);
        assert_eq!(self.number("SELECT COUNT(*) FROM outbox_sagas").await, sagas);
    }

    /// Checks in SQL that what is done is done once, that what is undone is undone once, and that
    /// nothing else is.
    pub(super) async fn balance(&self) {
        let doubled = "SELECT COUNT(*) FROM (SELECT of_order FROM story_ledger GROUP BY of_order, entry \
                       HAVING COUNT(*) > 1) d";
        assert_eq!(self.number(doubled).await, 0, "something was done twice");
        let unbalanced = |state: &str, sum: i64| {
            format!(
                "SELECT COUNT(*) FROM outbox_sagas s WHERE s.state = '{state}' AND {sum} <> \
                 (SELECT COALESCE(SUM(l.amount), 0) FROM story_ledger l WHERE l.of_order = s.correlation_id)"
            )
        };
        assert_eq!(self.number(&unbalanced("completed", TOTAL)).await, 0, "something was not done");
        assert_eq!(self.number(&unbalanced("compensated", 0)).await, 0, "something was not undone");
        let completed =
            self.number("SELECT COUNT(*) FROM outbox_sagas WHERE state = 'completed'").await;
        assert_eq!(
            self.number("SELECT COUNT(*) FROM outbox_events").await,
            completed,
            "an event a completed saga"
        );
        let stuck = SagaFilter { state: Some(SagaState::Stuck), ..SagaFilter::default() };
        for saga in self.outbox.sagas(&stuck, None, u32::MAX).await.unwrap() {
            let order: i64 = saga.correlation.trim_start_matches("order-").parse().unwrap();
            if CRASHING.contains(&order) {
                continue;
            }
            let by_chance = saga.instance.stuck_at.as_deref() != Some("charge");
            assert!(
                order % STUBBORN.0 == STUBBORN.1 && !by_chance,
                "stuck without a cause: {saga:?}"
            );
        }
    }

    /// Checks that one saga at a time held the lock of each entity, and that all are released;
    /// gives how many steps waited, and how many sagas were victims of deadlocks.
    pub(super) async fn locks_are_released(&self) -> (usize, usize) {
        let mut held: BTreeMap<String, Vec<(Timestamp, Timestamp)>> = BTreeMap::new();
        let (mut waited, mut victims) = (0, 0);
        for saga in self.outbox.sagas(&SagaFilter::default(), None, u32::MAX).await.unwrap() {
            let log = self.outbox.saga_log(saga.id).await.unwrap();
            let end = log.last().unwrap().at;
            for entry in &log {
                match &entry.record {
                    Record::Locked { entities, .. } => {
                        let spans = entities.iter().map(|entity| (entity.clone(), (entry.at, end)));
                        spans.for_each(|(entity, span)| held.entry(entity).or_default().push(span));
                    }
                    Record::BlockedOnLock { .. } => waited += 1,
                    Record::CompensationStarted { reason, .. }
                        if reason.contains("wait for each other") =>
                    {
                        victims += 1
                    }
                    _ => {}
                }
            }
        }
        for (entity, spans) in &mut held {
            spans.sort_unstable();
            let apart = spans.windows(2).all(|pair| pair[0].1 <= pair[1].0);
            assert!(apart, "two sagas held the lock of {entity} at once: {spans:?}");
        }
        for table in ["outbox_saga_locks", "outbox_saga_waits"] {
            assert_eq!(self.number(&format!("SELECT COUNT(*) FROM {table}")).await, 0, "{table}");
        }
        (waited, victims)
    }

    /// Checks that the log of each saga says what its row says.
    pub(super) async fn logs_agree(&self) {
        for saga in self.outbox.sagas(&SagaFilter::default(), None, u32::MAX).await.unwrap() {
            let log = self.outbox.saga_log(saga.id).await.unwrap();
            let (rebuilt, _) = rebuild(log.iter().map(|entry| &entry.record)).unwrap();
            assert_eq!(rebuilt, saga.instance, "{}", saga.id);
            assert!(log.iter().zip(1..).all(|(entry, n)| entry.seq == n), "a log without gaps");
        }
    }
}

/// Starts a process that drives the sagas of a database.
pub(super) async fn coordinator(temp: &TempDatabase, stops_at: Option<(String, u64)>) -> Process {
    let part = Coordinating { url: temp.url().to_owned(), lease_ms: LEASE_MS, stops_at };
    let mut process =
        Process::start(program("coordinator").arg(serde_json::to_string(&part).unwrap()));
    process.wait_for_line(SOON, "up").await;
    process
}
