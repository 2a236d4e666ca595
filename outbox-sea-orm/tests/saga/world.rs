//! A database with an outbox, and a ledger that sagas write to.

use crate::order::PlaceOrder;
use outbox_core::{
    event::SagaId,
    saga::{Instance, LogEntry, Record, SagaAdmin, SagaFilter, SagaState, SagaView, rebuild},
};
use outbox_sea_orm::prelude::*;
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use std::time::Duration;
use tests::{databases::TempDatabase, wait_until};

/// Long enough for a busy machine; nothing waits that long when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) db: DatabaseConnection,
    pub(crate) outbox: Outbox,
}

impl World {
    pub(crate) async fn open(temp: &TempDatabase) -> Self {
        let db = temp.connect().await;
        let outbox = Outbox::builder(db.clone()).source("orders").install().await.unwrap();
        for table in [
            "CREATE TABLE effects (saga VARCHAR(64) NOT NULL, what VARCHAR(64) NOT NULL, PRIMARY KEY (saga, what))",
            "CREATE TABLE plans (of_order BIGINT NOT NULL, step VARCHAR(64) NOT NULL, failures INT NOT NULL)",
        ] {
            db.execute_unprepared(table).await.unwrap();
        }
        Self { db, outbox }
    }

    /// Starts a coordinator for this definition, with a short poll interval and lease.
    pub(crate) async fn sagas(&self, definition: Saga<PlaceOrder>) -> Sagas {
        let builder = Sagas::builder(&self.outbox).register(definition);
        builder.poll(Duration::from_millis(50)).lease(Duration::from_secs(5)).start().await.unwrap()
    }

    /// Lets a step of an order fail so many times; a negative number aborts.
    pub(crate) async fn let_fail(&self, order: i64, step: &str, failures: i32) {
        let sql = format!(
            "INSERT INTO plans (of_order, step, failures) VALUES ({order}, '{step}', {failures})"
        );
        self.db.execute_unprepared(&sql).await.unwrap();
    }

    pub(crate) async fn start(&self, sagas: &Sagas, order: PlaceOrder) -> SagaId {
        let tx = self.outbox.begin().await.unwrap();
        let correlation = format!("order-{}", order.order_id);
        let started = sagas.start(&tx, order).correlation(correlation).await.unwrap();
        tx.commit().await.unwrap();
        started.id()
    }

    pub(crate) async fn view(&self, saga: SagaId) -> SagaView {
        let mut after = None;
        loop {
            let page = self.outbox.sagas(&SagaFilter::default(), after, 10_000).await.unwrap();
            after = Some(page.last().expect("it is on one of the pages").id);
            if let Some(view) = page.into_iter().find(|view| view.id == saga) {
                return view;
            }
        }
    }

    pub(crate) async fn state(&self, saga: SagaId) -> SagaState {
        self.view(saga).await.instance.state
    }

    /// Waits until a saga is in a state; gives its instance, and checks that the log gives the same
    /// one.
    pub(crate) async fn reaches(&self, saga: SagaId, state: SagaState) -> Instance {
        let reached = tests::holds_within(SOON, async || self.state(saga).await == state).await;
        let view = self.view(saga).await;
        assert!(reached, "{saga} does not become {state}: {:?}", view.instance);
        self.log_agrees(&view).await;
        view.instance
    }

    async fn log_agrees(&self, view: &SagaView) {
        let log = self.log(view.id).await;
        let (rebuilt, _) = rebuild(log.iter().map(|entry| &entry.record)).unwrap();
        assert_eq!(rebuilt, view.instance);
        assert!(log.iter().zip(1..).all(|(entry, n)| entry.seq == n), "a log without gaps");
    }

    pub(crate) async fn log(&self, saga: SagaId) -> Vec<LogEntry> {
        self.outbox.saga_log(saga).await.unwrap()
    }

    pub(crate) async fn kinds(&self, saga: SagaId) -> Vec<String> {
        let said = |record: &Record| match record.step() {
            Some(step) => format!("{} {step}", record.kind()),
            None => record.kind().to_owned(),
        };
        self.log(saga).await.iter().map(|entry| said(&entry.record)).collect()
    }

    /// Reads what a saga has done, in no order.
    pub(crate) async fn effects(&self, saga: SagaId) -> Vec<String> {
        let sql = format!("SELECT what FROM effects WHERE saga = '{saga}' ORDER BY what");
        self.texts(&sql).await
    }

    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let rows = self
            .db
            .query_all_raw(Statement::from_string(self.db.get_database_backend(), sql))
            .await
            .unwrap();
        rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let row = self
            .db
            .query_one_raw(Statement::from_string(self.db.get_database_backend(), sql))
            .await
            .unwrap();
        row.map_or(0, |row| row.try_get_by_index(0).unwrap())
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.db.execute_unprepared(sql).await.unwrap();
    }

    pub(crate) async fn ended(&self, n: i64) {
        let sql = "SELECT COUNT(*) FROM outbox_sagas WHERE state IN ('completed', 'compensated', 'stuck')";
        wait_until(SOON, "all sagas have ended", async || tests::equals(self.number(sql).await, n))
            .await;
    }
}
