//! Semantic locks: sagas that wait, that abort, and that are victims of deadlocks; and no lock or
//! wait remains.

use crate::{
    order::quickly,
    world::{SOON, World},
};
use outbox_core::{
    admin::OperatorNote,
    event::SagaId,
    saga::{
        Change, Due, Json, LockOutcome, NewSaga, Operation, Record, SagaAdmin, SagaClaim,
        SagaState, SagaStore, WaitEdges,
    },
};
use outbox_sea_orm::{
    entity::{saga_lock, saga_wait},
    prelude::*,
};
use sea_orm::{ConnectionTrait, EntityTrait, IsolationLevel, Statement, TransactionOptions};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tests::{
    databases::{Database, TempDatabase},
    on_every_database, wait_until,
};

/// Locks one entity, waits until a test opens its gate, locks another one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Visit {
    number: i64,
    first: String,
    second: Option<String>,
    /// Whether it aborts, in place of waiting.
    aborts: bool,
}

impl Visit {
    fn of(number: i64, first: &str) -> Self {
        Self { number, first: first.to_owned(), ..Self::default() }
    }

    async fn leave(what: &str, cx: &StepContext) -> Result<(), StepError> {
        let sql = format!("INSERT INTO effects (saga, what) VALUES ('{}', '{what}')", cx.saga());
        cx.tx.execute_unprepared(&sql).await?;
        Ok(())
    }

    async fn enter(&mut self, cx: &StepContext) -> Result<(), StepError> {
        if self.aborts && !cx.try_lock(&self.first).await? {
            return Err(StepError::abort(format!("`{}` is in use", self.first)));
        }
        cx.lock(&self.first).await?;
        cx.lock(&self.first).await?;
        Self::leave("enter", cx).await
    }

    async fn exit(&mut self, cx: &StepContext) -> Result<(), StepError> {
        Self::leave("exit", cx).await
    }

    async fn wait(&mut self, cx: &StepContext) -> Result<(), StepError> {
        let sql = format!(
            "SELECT failures FROM plans WHERE of_order = {} AND step = 'gate'",
            self.number
        );
        let backend = ConnectionTrait::get_database_backend(&cx.tx);
        match cx.tx.query_one_raw(Statement::from_string(backend, sql)).await? {
            Some(row) if row.try_get_by_index::<i32>(0)? < 0 => {
                Err(StepError::abort("the gate is closed for ever"))
            }
            Some(_) => Ok(()),
            None => Err(StepError::retry("the gate is closed")),
        }
    }

    async fn go_on(&mut self, cx: &StepContext) -> Result<(), StepError> {
        if let Some(second) = &self.second {
            cx.lock(second).await?;
        }
        Self::leave("go on", cx).await
    }
}

fn visit(pivot_first: bool) -> Saga<Visit> {
    let first = Saga::builder("visit", 1).step("enter", Visit::enter);
    let entered =
        if pivot_first { first.pivot() } else { first.compensate_without_output(Visit::exit) };
    entered.step("gate", Visit::wait).retry(quickly(1_000)).step("go-on", Visit::go_on).build()
}

struct Scene {
    world: World,
    sagas: Sagas,
}

impl Scene {
    async fn open(temp: &TempDatabase, definition: Saga<Visit>) -> Self {
        let world = World::open(temp).await;
        let builder = Sagas::builder(&world.outbox).register(definition);
        let sagas = builder
            .poll(Duration::from_millis(50))
            .lease(Duration::from_secs(5))
            .start()
            .await
            .unwrap();
        Self { world, sagas }
    }

    async fn start(&self, visit: Visit) -> SagaId {
        let tx = self.world.outbox.begin().await.unwrap();
        let started =
            self.sagas.start(&tx, visit.clone()).correlation(format!("visit-{}", visit.number));
        let id = started.await.unwrap().id();
        tx.commit().await.unwrap();
        id
    }

    async fn open_gate(&self, number: i64) {
        self.world.let_fail(number, "gate", 0).await;
    }

    /// Waits until a saga has tried its gate, and so has locked its first entity.
    async fn at_gate(&self, saga: SagaId) {
        wait_until(SOON, "a saga is at its gate", async || {
            self.world.view(saga).await.instance.step("gate").is_some()
        })
        .await;
    }

    async fn waits(&self, saga: SagaId) {
        let waits = async || self.world.view(saga).await.instance.blocked_on().next().is_some();
        wait_until(SOON, "a saga waits", waits).await;
    }

    async fn holder(&self, entity: &str) -> Option<SagaId> {
        let tx = self.world.outbox.begin().await.unwrap();
        let holder = self.sagas.holder(&tx, entity).await.unwrap();
        tx.rollback().await.unwrap();
        holder
    }

    /// Ends, and expects that no entity is locked and no saga waits.
    async fn ends(self) {
        self.sagas.shutdown(SOON).await.unwrap();
        assert_eq!(saga_lock::Entity::find().all(&self.world.db).await.unwrap(), []);
        assert_eq!(saga_wait::Entity::find().all(&self.world.db).await.unwrap(), []);
    }
}

/// When a record of a kind was written.
async fn at(world: &World, saga: SagaId, kind: &str) -> i64 {
    let log = world.log(saga).await;
    log.iter().find(|entry| entry.record.kind() == kind).map(|entry| entry.at.as_micros()).unwrap()
}

on_every_database! {
    async fn a_saga_waits_until_the_one_that_holds_the_lock_has_ended(temp: &TempDatabase) {
        let scene = Scene::open(temp, visit(false)).await;
        let world = &scene.world;
        let first = scene.start(Visit::of(1, "account/7")).await;
        scene.at_gate(first).await;
        let second = scene.start(Visit::of(2, "account/7")).await;
        let other = scene.start(Visit::of(3, "account/8")).await;
        scene.waits(second).await;
        scene.open_gate(3).await;
        world.reaches(other, SagaState::Completed).await;
        assert_eq!(scene.holder("account/7").await, Some(first));
        assert_eq!(scene.holder("account/8").await, None, "it was released");
        let instance = world.view(second).await.instance;
        let blocked_on = instance.blocked_on().next().unwrap();
        assert_eq!((blocked_on.entity.as_str(), &blocked_on.holder), ("account/7", &first.to_string()));
        assert_eq!(instance.failures("enter"), 0, "a wait is no failure");
        let wait = saga_wait::Entity::find().one(&world.db).await.unwrap().unwrap();
        assert_eq!((wait.saga_id, wait.entity.as_str()), (*second.as_uuid(), "account/7"));
        let lock = saga_lock::Entity::find().one(&world.db).await.unwrap().unwrap();
        assert_eq!((lock.saga_id, lock.entity.as_str()), (*first.as_uuid(), "account/7"));
        assert!(lock.locked_at <= wait.since_us, "{lock:?}, {wait:?}");

        scene.open_gate(2).await;
        scene.open_gate(1).await;
        world.reaches(first, SagaState::Completed).await;
        let ended = world.reaches(second, SagaState::Completed).await;
        assert_eq!((ended.locks, ended.steps[0].blocked_on.clone()), (vec!["account/7".to_owned()], None));
        let kinds = world.kinds(second).await;
        assert_eq!(kinds[..4], ["started", "blocked_on_lock enter", "locked enter", "done enter"], "however often it polled");
        assert!(at(world, first, "completed").await <= at(world, second, "locked").await);
        scene.ends().await;
    }

    async fn a_saga_that_aborts_compensates_and_a_compensated_saga_has_released_its_locks(temp: &TempDatabase) {
        let scene = Scene::open(temp, visit(false)).await;
        let world = &scene.world;
        let first = scene.start(Visit::of(1, "account/7")).await;
        scene.at_gate(first).await;
        let aborts = scene.start(Visit { aborts: true, ..Visit::of(2, "account/7") }).await;
        let instance = world.reaches(aborts, SagaState::Compensated).await;
        assert_eq!(instance.reason.as_deref(), Some("`enter`: `account/7` is in use"));
        let nameless = scene.start(Visit::of(3, "")).await;
        let instance = world.reaches(nameless, SagaState::Compensated).await;
        let reason = instance.reason.unwrap();
        assert!(reason.contains("does not have 1 to 255 bytes"), "{reason}");

        world.let_fail(1, "gate", -1).await;
        world.reaches(first, SagaState::Compensated).await;
        assert_eq!(world.effects(first).await, ["enter", "exit"]);
        scene.open_gate(4).await;
        let next = scene.start(Visit { aborts: true, ..Visit::of(4, "account/7") }).await;
        world.reaches(next, SagaState::Completed).await;
        scene.ends().await;
    }

    async fn of_two_sagas_in_a_deadlock_the_younger_compensates(temp: &TempDatabase) {
        let scene = Scene::open(temp, visit(false)).await;
        let world = &scene.world;
        let [older, younger] = [
            scene.start(Visit { second: Some("y".into()), ..Visit::of(1, "x") }).await,
            scene.start(Visit { second: Some("x".into()), ..Visit::of(2, "y") }).await,
        ];
        for saga in [older, younger] {
            scene.at_gate(saga).await;
        }
        scene.open_gate(1).await;
        scene.waits(older).await;
        scene.open_gate(2).await;
        let instance = world.reaches(younger, SagaState::Compensated).await;
        let expected = format!("`go-on`: deadlock: `x` is locked by the saga {older}, and they wait for each other");
        assert_eq!(instance.reason, Some(expected));
        world.reaches(older, SagaState::Completed).await;
        assert_eq!(world.effects(younger).await, ["enter", "exit"]);
        assert_eq!(world.effects(older).await, ["enter", "go on"]);
        scene.ends().await;
    }

    async fn where_none_may_compensate_the_younger_is_stuck_until_an_operator_decides(temp: &TempDatabase) {
        let scene = Scene::open(temp, visit(true)).await;
        let world = &scene.world;
        let [older, younger] = [
            scene.start(Visit { second: Some("y".into()), ..Visit::of(1, "x") }).await,
            scene.start(Visit { second: Some("x".into()), ..Visit::of(2, "y") }).await,
        ];
        for saga in [older, younger] {
            scene.at_gate(saga).await;
        }
        for number in [1, 2] {
            scene.open_gate(number).await;
        }
        let instance = world.reaches(younger, SagaState::Stuck).await;
        assert_eq!(instance.stuck_at.as_deref(), Some("go-on"));
        assert!(instance.reason.unwrap().contains("wait for each other"));
        let note = OperatorNote::new("ann", "done by hand");
        assert!(world.outbox.operate(younger, &Operation::Skip("go-on".into()), &note).await.unwrap());
        world.reaches(younger, SagaState::Completed).await;
        world.reaches(older, SagaState::Completed).await;
        assert_eq!(world.effects(older).await, ["enter", "go on"]);
        scene.ends().await;
    }

    async fn a_wait_ends_with_the_deadline_and_with_an_operators_decision(temp: &TempDatabase) {
        let definition = Saga::builder("visit", 1).deadline(Duration::from_secs(3));
        let definition = definition.step("enter", Visit::enter).pivot().step("gate", Visit::wait).retry(quickly(1_000));
        let scene = Scene::open(temp, definition.build()).await;
        let world = &scene.world;
        let first = scene.start(Visit::of(1, "x")).await;
        scene.at_gate(first).await;
        let [cancelled, late] = [scene.start(Visit::of(2, "x")).await, scene.start(Visit::of(3, "x")).await];
        scene.waits(cancelled).await;
        assert!(world.outbox.operate(cancelled, &Operation::Cancel, &OperatorNote::new("ann", "no")).await.unwrap());
        world.reaches(cancelled, SagaState::Compensated).await;
        let instance = world.reaches(late, SagaState::Compensated).await;
        assert_eq!(instance.reason.as_deref(), Some("its deadline has passed"));
        assert_eq!(saga_wait::Entity::find().all(&world.db).await.unwrap(), [], "no saga waits any more");
        assert_eq!(scene.holder("x").await, Some(first), "past its pivot no deadline counts");
        scene.open_gate(1).await;
        world.reaches(first, SagaState::Completed).await;
        scene.ends().await;
    }

    async fn the_end_of_a_saga_makes_the_one_due_that_has_waited_longest(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let store = &world.outbox;
        let known = [(Arc::<str>::from("visit"), 1)];
        let ids: [SagaId; 3] = std::array::from_fn(|_| SagaId::generate());
        let [holder, late, early] = ids;
        let tx = store.begin().await.unwrap();
        for id in ids {
            let data = Json::of(&0).unwrap();
            let (name, correlation) = (Arc::clone(&known[0].0), id.to_string().into());
            store.start(&tx, &NewSaga { id, name, version: 1, correlation, data, deadline: None }).await.unwrap();
        }
        for (saga, expected) in [(holder, LockOutcome::Acquired), (holder, LockOutcome::AlreadyOwned), (early, LockOutcome::OwnedBy(holder))] {
            assert_eq!(store.lock(&tx, saga, "x").await.unwrap(), expected);
        }
        tx.commit().await.unwrap();
        let claims = store.claim(&known, Duration::from_secs(60), 10).await.unwrap();
        assert_eq!(claims.len(), 3);
        let write = async |claims: &[SagaClaim], id: SagaId, records: Vec<Record>, due: Due| {
            let claim = claims.iter().find(|claim| claim.id == id).unwrap();
            let tx = store.begin().await.unwrap();
            let open = store.open(&tx, claim).await.unwrap().unwrap();
            let instance = records.iter().fold(open.instance.clone(), |at, record| at.after(record).unwrap());
            let (before, seq) = (&open.instance, open.seq);
            let change = Change { id, before, instance: &instance, data: None, seq, records: &records, due };
            store.record(&tx, &change).await.unwrap();
            tx.commit().await.unwrap();
        };
        for (id, since_us) in [(late, 2), (early, 1)] {
            let (step, entity) = ("enter".to_owned(), "x".to_owned());
            let blocked = Record::BlockedOnLock { step, entity, holder: holder.to_string(), since_us };
            write(&claims, id, vec![blocked], Due::After(Duration::from_secs(3_600))).await;
        }
        let tx = store.begin().await.unwrap();
        let mut edges = store.wait_edges(&tx, &ids).await.unwrap();
        tx.rollback().await.unwrap();
        edges.sort_by_key(|edges| edges.saga);
        let waits = |saga| WaitEdges { saga, waits_for: vec![holder], may_compensate: true };
        assert_eq!(edges, [waits(late), waits(early)]);
        assert!(store.claim(&known, Duration::from_secs(60), 10).await.unwrap().is_empty(), "nothing is due");
        let locked = Record::Locked { step: "enter".into(), entities: vec!["x".into()] };
        write(&claims, holder, vec![locked, Record::Completed], Due::Never).await;
        let due = store.claim(&known, Duration::from_secs(60), 10).await.unwrap();
        assert_eq!(due.iter().map(|claim| (claim.id, claim.taken_over)).collect::<Vec<_>>(), [(early, false)]);
        // It does not lock what it waited for, and wakes the next one.
        let back = Record::CompensationStarted { reason: "no".into(), by: None };
        write(&due, early, vec![back, Record::Compensated], Due::Never).await;
        let due = store.claim(&known, Duration::from_secs(60), 10).await.unwrap();
        assert_eq!(due.iter().map(|claim| claim.id).collect::<Vec<_>>(), [late]);
        let tx = store.begin().await.unwrap();
        assert_eq!(store.lock(&tx, late, "x").await.unwrap(), LockOutcome::Acquired, "the lock is free");
        tx.commit().await.unwrap();
    }

    async fn a_lock_under_which_old_data_would_be_read_is_refused(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let isolation_level = Some(IsolationLevel::RepeatableRead);
        let options = TransactionOptions { isolation_level, ..TransactionOptions::default() };
        let tx = world.outbox.begin_with(options).await.unwrap();
        let locked = world.outbox.lock(&tx, SagaId::generate(), "x").await;
        if temp.database() == Database::Postgres {
            let error = locked.unwrap_err().to_string();
            assert!(error.contains("at REPEATABLE READ a step would not see"), "{error}");
        } else {
            // On MySQL the snapshot begins after the lock, and SQLite has one writer.
            assert_eq!(locked.unwrap(), LockOutcome::Acquired);
        }
        tx.rollback().await.unwrap();
    }

    async fn money_that_is_read_in_one_step_and_written_in_another_is_not_lost(temp: &TempDatabase) {
        let world = World::open(temp).await;
        world.run("CREATE TABLE accounts (id BIGINT NOT NULL PRIMARY KEY, amount BIGINT NOT NULL)").await;
        let rows: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, 1000)")).collect();
        world.run(&format!("INSERT INTO accounts (id, amount) VALUES {}", rows.join(", "))).await;
        // Two coordinators, as in two processes.
        let start = async || {
            let sagas = Sagas::builder(&world.outbox).register(transfer()).concurrency(4);
            sagas.poll(Duration::from_millis(50)).lease(Duration::from_secs(5)).start().await.unwrap()
        };
        let coordinators = [start().await, start().await];
        let mut expected: Vec<i64> = (0..ACCOUNTS).map(|_| 1_000).collect();
        let tx = world.outbox.begin().await.unwrap();
        for number in 0..TRANSFERS {
            let (from, to) = (number % ACCOUNTS, (number * 2 + 1) % ACCOUNTS);
            let transfer = Transfer { from, to, amount: number, read: None };
            coordinators[0].start(&tx, transfer).correlation(format!("transfer-{number}")).await.unwrap();
            if number % 5 != 0 {
                expected[usize::try_from(from).unwrap()] -= number;
                expected[usize::try_from(to).unwrap()] += number;
            }
        }
        tx.commit().await.unwrap();
        world.ended(TRANSFERS).await;
        for sagas in coordinators {
            sagas.shutdown(SOON).await.unwrap();
        }
        for (id, amount) in (0..).zip(expected) {
            let sql = format!("SELECT amount FROM accounts WHERE id = {id}");
            assert_eq!(world.number(&sql).await, amount, "account {id}");
        }
        let completed = "SELECT COUNT(*) FROM outbox_sagas WHERE state = 'completed'";
        assert_eq!(world.number(completed).await, TRANSFERS - TRANSFERS / 5);
        let left = "SELECT (SELECT COUNT(*) FROM outbox_saga_locks) + (SELECT COUNT(*) FROM outbox_saga_waits)";
        assert_eq!(world.number(left).await, 0);
    }
}

const ACCOUNTS: i64 = 5;
const TRANSFERS: i64 = 40;

/// Reads two amounts in one step and writes what follows in another.
#[derive(Debug, Serialize, Deserialize)]
struct Transfer {
    from: i64,
    to: i64,
    amount: i64,
    read: Option<(i64, i64)>,
}

impl Transfer {
    async fn read(&mut self, cx: &StepContext) -> Result<(), StepError> {
        let mut accounts = [self.from, self.to];
        accounts.sort_unstable();
        for id in accounts {
            cx.lock(format!("account/{id}")).await?;
        }
        let backend = ConnectionTrait::get_database_backend(&cx.tx);
        let amount = async |id: i64| {
            let sql = format!("SELECT amount FROM accounts WHERE id = {id}");
            let row = cx.tx.query_one_raw(Statement::from_string(backend, sql)).await?;
            row.ok_or_else(|| StepError::abort("there is no such account"))?
                .try_get_by_index(0)
                .map_err(StepError::from)
        };
        self.read = Some((amount(self.from).await?, amount(self.to).await?));
        Ok(())
    }

    async fn think(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        if self.amount % 5 == 0 { Err(StepError::abort("not this amount")) } else { Ok(()) }
    }

    async fn write(&mut self, cx: &StepContext) -> Result<(), StepError> {
        let Some((from, to)) = self.read else { return Err(StepError::abort("nothing was read")) };
        let to = if self.from == self.to { from } else { to + self.amount };
        for (id, amount) in [(self.from, from - self.amount), (self.to, to)] {
            cx.tx
                .execute_unprepared(&format!(
                    "UPDATE accounts SET amount = {amount} WHERE id = {id}"
                ))
                .await?;
        }
        Ok(())
    }
}

fn transfer() -> Saga<Transfer> {
    Saga::builder("transfer", 1)
        .step("read", Transfer::read)
        .step("think", Transfer::think)
        .step("write", Transfer::write)
        .retry(quickly(5))
        .build()
}
