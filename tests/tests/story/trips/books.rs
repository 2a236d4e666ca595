//! The books of both sides, and what must hold of them.

use super::trip::{BOOKED, Role, Trip};
use crate::stage::SOON;
use outbox_sea_orm::{
    failure::{DeadLetter, DeadReason},
    operator::{AdminStore, Decision, LetterFilter},
    prelude::*,
    saga::{SagaAdmin, SagaFilter, SagaState, rebuild},
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

    /// Gives the letters about which nobody has decided.
    async fn open_letters(&self) -> Vec<DeadLetter> {
        let letters = self.outbox.dead_letters(&LetterFilter::all(), None, u32::MAX).await.unwrap();
        letters.into_iter().filter(|letter| letter.fate.is_none()).collect()
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

/// Both services, and a handle that starts trips and carries none.
pub(super) struct Books {
    orders: Service,
    others: Service,
    sagas: Sagas,
    wire: String,
}

impl Books {
    pub(super) async fn open(temp: &TempDatabase) -> Self {
        let [orders, others] = [
            TempDatabase::create(temp.database()).await,
            TempDatabase::create(temp.database()).await,
        ];
        let wire = format!("outbox-trips-{}", orders.name());
        let (orders, others) =
            (Service::open(orders, "/orders").await, Service::open(others, "/others").await);
        let sagas =
            Sagas::builder(&orders.outbox).register(Trip::saga()).reply_to(super::trip::ANSWERS);
        let sagas = sagas.start().await.unwrap();
        sagas.shutdown(SOON).await.unwrap();
        Self { orders, others, sagas, wire }
    }

    /// Starts a process of one side.
    pub(super) async fn process(&self, carries: bool) -> Process {
        let (commands, answers) =
            (format!("{}-commands", self.wire), format!("{}-answers", self.wire));
        let (service, receives, sends) = if carries {
            (&self.orders, answers, commands)
        } else {
            (&self.others, commands, answers)
        };
        let url = service.temp.url().to_owned();
        let role =
            Role { url, carries, receives, sends, seed: fastrand::u64(..), lease_ms: LEASE_MS };
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

    /// Waits until nothing is on its way any more.
    pub(super) async fn drained(&self, within: Duration) {
        for (service, whose) in [(&self.orders, "orders"), (&self.others, "others")] {
            let left = async || {
                let mut counts = [0; 2];
                for (count, table) in counts.iter_mut().zip(["outbox_events", "outbox_deliveries"])
                {
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

    /// Does what an operator does about messages whose process was killed from outside each time they were tried, which nobody
    /// can tell from messages that kill it: has them delivered again. Of anything else, and of more of them, none is there.
    pub(super) async fn redrive_innocent_ones(&self, most: usize) {
        for service in [&self.orders, &self.others] {
            let letters = service.open_letters().await;
            let are_innocent = letters.iter().all(|letter| letter.reason == DeadReason::Crashed);
            assert!(are_innocent && letters.len() <= most, "{letters:#?}");
            let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
            let decision = Decision::new("the campaign", "killed from outside");
            assert_eq!(service.outbox.redrive(&ids, &decision).await.unwrap().len(), ids.len());
        }
    }

    /// Checks over both databases that a completed trip has booked everything once, and a compensated one nothing that was
    /// not taken back once. Gives how many of each there are.
    pub(super) async fn balance(&self) -> (usize, usize) {
        let (here, there) = (self.orders.booked().await, self.others.booked().await);
        let (mut completed, mut compensated) = (0, 0);
        for saga in self.orders.outbox.sagas(&SagaFilter::default(), None, u32::MAX).await.unwrap()
        {
            let trip = &saga.correlation;
            let count = |books: &BTreeMap<_, i64>, entry: &str| {
                books.get(&(trip.clone(), entry.to_owned())).copied().unwrap_or(0)
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
        for service in [&self.orders, &self.others] {
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
