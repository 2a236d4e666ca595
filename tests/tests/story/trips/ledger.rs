//! The ledgers of both services, and what must hold of them.

use super::trip::{BOOKED, Role, Trip};
use crate::support::SOON;
use outbox_core::saga::rebuild;
use outbox_sea_orm::{
    admin::{AdminStore, DeadLetterFilter, OperatorNote},
    failure::{DeadLetter, DeadReason},
    prelude::*,
    saga::{SagaAdmin, SagaFilter, SagaState},
};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use std::{collections::BTreeMap, time::Duration};
use tests::{
    databases::TempDatabase,
    processes::{Process, program},
};

/// A lease whose end a test waits for.
const LEASE_MS: u64 = 1_500;
/// Without a primary key, so that what is booked twice is seen.
const LEDGER: &str = "CREATE TABLE story_ledger (of_trip VARCHAR(64) NOT NULL, entry VARCHAR(64) NOT NULL, amount BIGINT NOT NULL)";

/// A service's database.
struct Service {
    temp: TempDatabase,
    db: DatabaseConnection,
    outbox: Outbox,
}

impl Service {
    async fn open(temp: TempDatabase, source: &str) -> Self {
        let db = temp.connect().await;
        let outbox = Outbox::builder(db.clone()).source(source).install().await.unwrap();
        db.execute_unprepared(LEDGER).await.unwrap();
        Self { temp, db, outbox }
    }

    async fn number(&self, sql: &str) -> i64 {
        let row = self
            .db
            .query_one_raw(Statement::from_string(self.db.get_database_backend(), sql))
            .await
            .unwrap();
        row.map_or(0, |row| row.try_get_by_index(0).unwrap())
    }

    /// Gives the unresolved dead letters.
    async fn open_letters(&self) -> Vec<DeadLetter> {
        let letters =
            self.outbox.dead_letters(&DeadLetterFilter::all(), None, u32::MAX).await.unwrap();
        letters.into_iter().filter(|letter| letter.resolution.is_none()).collect()
    }

    /// Reads what is booked, by trip and entry, and how often.
    async fn booked(&self) -> BTreeMap<(String, String), i64> {
        let sql = "SELECT of_trip, entry, COUNT(*) FROM story_ledger GROUP BY of_trip, entry";
        let rows = self
            .db
            .query_all_raw(Statement::from_string(self.db.get_database_backend(), sql))
            .await
            .unwrap();
        let read = |row: &sea_orm::QueryResult| {
            let text = |n| row.try_get_by_index::<String>(n).unwrap();
            ((text(0), text(1)), row.try_get_by_index(2).unwrap())
        };
        rows.iter().map(read).collect()
    }
}

/// Both services, and a handle that starts trips and drives none.
pub(super) struct Ledgers {
    orders: Service,
    participants: Service,
    sagas: Sagas,
    network: String,
}

impl Ledgers {
    pub(super) async fn open(temp: &TempDatabase) -> Self {
        let [orders, participants] = [
            TempDatabase::create(temp.database()).await,
            TempDatabase::create(temp.database()).await,
        ];
        let network = format!("outbox-trips-{}", orders.name());
        let (orders, participants) = (
            Service::open(orders, "/orders").await,
            Service::open(participants, "/participants").await,
        );
        let sagas =
            Sagas::builder(&orders.outbox).register(Trip::saga()).reply_to(super::trip::REPLIES);
        let sagas = sagas.start().await.unwrap();
        sagas.shutdown(SOON).await.unwrap();
        Self { orders, participants, sagas, network }
    }

    /// Starts a process of one service.
    pub(super) async fn process(&self, drives_sagas: bool) -> Process {
        let (commands, replies) =
            (format!("{}-commands", self.network), format!("{}-replies", self.network));
        let (service, receives, sends) = if drives_sagas {
            (&self.orders, replies, commands)
        } else {
            (&self.participants, commands, replies)
        };
        let url = service.temp.url().to_owned();
        let role = Role {
            url,
            drives_sagas,
            receives,
            sends,
            seed: fastrand::u64(..),
            lease_ms: LEASE_MS,
        };
        let mut process =
            Process::start(program("trader").arg(serde_json::to_string(&role).unwrap()));
        process.wait_for_line(SOON, "up").await;
        process
    }

    /// Starts trips in one transaction.
    pub(super) async fn start(&self, trips: std::ops::Range<i64>) {
        let tx = self.orders.outbox.begin().await.unwrap();
        for number in trips {
            self.sagas
                .start(&tx, Trip { number })
                .correlation(format!("trip-{number}"))
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// Waits until each of so many trips has ended.
    pub(super) async fn ended(&self, trips: i64, within: Duration) {
        let ended = "SELECT COUNT(*) FROM outbox_sagas WHERE state IN ('completed', 'compensated')";
        let over =
            tests::holds_within(within, async || self.orders.number(ended).await == trips).await;
        if !over {
            let all =
                self.orders.outbox.sagas(&SagaFilter::default(), None, u32::MAX).await.unwrap();
            let open: Vec<_> =
                all.iter().filter(|saga| !saga.instance.state.is_final()).take(5).collect();
            panic!(
                "{} of {trips} trips have ended within {within:?}; open are {open:#?}",
                self.orders.number(ended).await
            );
        }
    }

    /// Waits until no event and no deferred delivery is left.
    pub(super) async fn drained(&self, within: Duration) {
        for (service, whose) in [(&self.orders, "orders"), (&self.participants, "participants")] {
            let left = async || {
                let mut counts = [0; 2];
                for (count, table) in counts.iter_mut().zip(["outbox_events", "outbox_deferred"]) {
                    *count = service.number(&format!("SELECT COUNT(*) FROM {table}")).await;
                }
                counts
            };
            let over = tests::holds_within(within, async || left().await == [0, 0]).await;
            assert!(
                over,
                "of {whose}, events and stored deliveries still wait: {:?}",
                left().await
            );
        }
    }

    /// Redrives, as an operator does, the dead letters of messages whose processes the campaign
    /// killed at each attempt: a consumer cannot tell such a message from one that crashes its
    /// process. Expects no other letters, and no more than `most`.
    pub(super) async fn redrive_crashed_letters(&self, most: usize) {
        for service in [&self.orders, &self.participants] {
            let letters = service.open_letters().await;
            let are_crashed = letters.iter().all(|letter| letter.reason == DeadReason::Crashed);
            assert!(are_crashed && letters.len() <= most, "{letters:#?}");
            let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
            let decision = OperatorNote::new("the campaign", "killed from outside");
            assert_eq!(service.outbox.redrive(&ids, &decision).await.unwrap().len(), ids.len());
        }
    }

    /// Checks over both databases that a completed trip has booked everything once, and that each
    /// booking of a compensated trip was cancelled once. Gives how many of each there are.
    pub(super) async fn balance(&self) -> (usize, usize) {
        let (here, there) = (self.orders.booked().await, self.participants.booked().await);
        let (mut completed, mut compensated) = (0, 0);
        for saga in self.orders.outbox.sagas(&SagaFilter::default(), None, u32::MAX).await.unwrap()
        {
            let trip = &saga.correlation;
            let count = |ledgers: &BTreeMap<_, i64>, entry: &str| {
                ledgers.get(&(trip.clone(), entry.to_owned())).copied().unwrap_or(0)
            };
            let is_completed = saga.instance.state == SagaState::Completed;
            assert!(is_completed || saga.instance.state == SagaState::Compensated, "{saga:?}");
            assert_eq!(count(&here, "hold"), 1, "{saga:?}");
            assert_eq!(count(&here, "tell"), i64::from(is_completed), "{saga:?}");
            assert_eq!(count(&here, "release"), i64::from(!is_completed), "{saga:?}");
            for (what, _) in BOOKED {
                let (booked, cancelled) =
                    (count(&there, what), count(&there, &format!("cancel {what}")));
                let expected = if is_completed {
                    booked == 1 && cancelled == 0
                } else {
                    booked <= 1 && cancelled == booked
                };
                assert!(
                    expected,
                    "{what}: booked {booked} times, cancelled {cancelled} times, of {saga:?}"
                );
            }
            (completed, compensated) =
                (completed + usize::from(is_completed), compensated + usize::from(!is_completed));
        }
        for service in [&self.orders, &self.participants] {
            let open = service.open_letters().await;
            assert!(open.is_empty(), "nothing is given up: {open:#?}");
        }
        (completed, compensated)
    }
    /// Checks that the log of each saga says what its row says; when nothing more is written.
    pub(super) async fn logs_agree(&self) {
        for saga in self.orders.outbox.sagas(&SagaFilter::default(), None, u32::MAX).await.unwrap()
        {
            let log = self.orders.outbox.saga_log(saga.id).await.unwrap();
            let (rebuilt, _) = rebuild(log.iter().map(|entry| &entry.record)).unwrap();
            assert_eq!(rebuilt, saga.instance, "{}", saga.id);
        }
    }
}
