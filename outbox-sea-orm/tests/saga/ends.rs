//! Ends and starts of sagas: hooks in the transaction of the end, starts under the correlation id
//! of an ended saga, and clients, which drive none.

use crate::{
    order::{PlaceOrder, place_order, quickly},
    world::{SOON, World},
};
use outbox_core::{
    event::SagaId,
    saga::{Record, SagaAdmin, SagaFilter, SagaState, SagasError},
};
use outbox_sea_orm::prelude::*;
use sea_orm::{ConnectionTrait, Statement};
use serde::{Deserialize, Serialize};
use tests::{
    databases::{Database, TempDatabase},
    on_every_database, wait_until,
};

impl PlaceOrder {
    async fn confirmed(&self, cx: &StepContext) -> Result<(), StepError> {
        assert_eq!((cx.step(), cx.reason()), ("on_completed", None));
        assert!(self.notes.contains(&"reserved".to_owned()), "the data of the last step");
        self.does("confirmed", cx).await
    }

    async fn cancelled(&self, cx: &StepContext) -> Result<(), StepError> {
        assert!(cx.reason().is_some_and(|why| why.contains("today")), "{:?}", cx.reason());
        self.does("cancelled", cx).await
    }

    async fn alarmed(&self, cx: &StepContext) -> Result<(), StepError> {
        assert!(cx.reason().is_some_and(|why| why.contains("no thank today")), "{:?}", cx.reason());
        self.does("alarmed", cx).await
    }

    async fn thank_or_not(&mut self, cx: &StepContext) -> Result<(), StepError> {
        self.does("thank", cx).await
    }
}

fn with_hooks() -> Saga<PlaceOrder> {
    Saga::builder("place-order", 1)
        .on_completed(PlaceOrder::confirmed)
        .on_compensated(PlaceOrder::cancelled)
        .on_stuck(PlaceOrder::alarmed)
        .step("reserve", PlaceOrder::reserve)
        .compensate(PlaceOrder::release)
        .retry(quickly(3))
        .step("ship", PlaceOrder::ship)
        .pivot()
        .retry(quickly(3))
        .step("thank", PlaceOrder::thank_or_not)
        .build()
}

on_every_database! {
    async fn hooks_write_in_the_transaction_that_ends_a_saga_or_says_that_it_is_stuck(temp: &TempDatabase) {
        let world = World::open(temp).await;
        world.let_fail(2, "reserve", -1).await;
        world.let_fail(3, "ship", -1).await;
        let sagas = world.sagas(with_hooks()).await;
        let completed = world.start(&sagas, PlaceOrder::number(1)).await;
        world.reaches(completed, SagaState::Completed).await;
        assert_eq!(world.effects(completed).await, ["confirmed", "reserve", "ship", "thank"]);
        // The first step has given up, and there is nothing to undo.
        let compensated = world.start(&sagas, PlaceOrder::number(2)).await;
        world.reaches(compensated, SagaState::Compensated).await;
        assert_eq!(world.effects(compensated).await, ["cancelled"]);
        // Before the pivot is done, the saga compensates.
        let back = world.start(&sagas, PlaceOrder::number(3)).await;
        world.reaches(back, SagaState::Compensated).await;
        assert_eq!(world.effects(back).await, ["cancelled", "release", "reserve"]);
        world.let_fail(4, "thank", -1).await;
        let stuck = world.start(&sagas, PlaceOrder::number(4)).await;
        world.reaches(stuck, SagaState::Stuck).await;
        assert_eq!(world.effects(stuck).await, ["alarmed", "reserve", "ship"]);
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_hook_that_fails_lets_no_saga_end_and_keeps_none_from_being_stuck(temp: &TempDatabase) {
        let world = World::open(temp).await;
        for (order, what, failures) in [(1, "confirmed", 1), (2, "reserve", -1), (2, "cancelled", -1), (3, "thank", -1), (3, "alarmed", 9)] {
            world.let_fail(order, what, failures).await;
        }
        let sagas = world.sagas(with_hooks()).await;
        let (one, two) = (world.start(&sagas, PlaceOrder::number(1)).await, world.start(&sagas, PlaceOrder::number(2)).await);
        let stuck = world.start(&sagas, PlaceOrder::number(3)).await;
        let has_reached = async |saga: SagaId, what: &str| {
            let done = async || world.kinds(saga).await.last().is_some_and(|last| last.starts_with(what));
            wait_until(SOON, "everything but the end is written down", done).await;
        };
        has_reached(one, "done thank").await;
        has_reached(two, "compensation_started").await;
        let instance = world.reaches(stuck, SagaState::Stuck).await;
        assert!(instance.reason.unwrap().contains("no thank today"));
        assert_eq!(world.effects(stuck).await, ["reserve", "ship"], "what a hook has written that fails is not there");
        for (saga, state) in [(one, SagaState::Running), (two, SagaState::Compensating)] {
            assert_eq!(world.state(saga).await, state, "it has not ended");
        }
        assert_eq!((world.effects(one).await.len(), world.effects(two).await.len()), (3, 0));
        world.run("DELETE FROM plans").await;
        world.reaches(one, SagaState::Completed).await;
        world.reaches(two, SagaState::Compensated).await;
        assert_eq!(world.effects(one).await, ["confirmed", "reserve", "ship", "thank"]);
        assert_eq!(world.effects(two).await, ["cancelled"]);
        let ends = world.log(one).await.into_iter().filter(|entry| entry.record == Record::Completed).count();
        assert_eq!(ends, 1);
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_start_of_a_saga_that_has_ended_says_so_and_begins_anew_where_it_is_told_to(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        let first = world.start(&sagas, PlaceOrder::number(1)).await;
        world.reaches(first, SagaState::Completed).await;
        let changed_at = world.view(first).await.changed_at;
        let tx = world.outbox.begin().await.unwrap();
        let order = || PlaceOrder::number(1);
        match sagas.start(&tx, order()).correlation("order-1").await.unwrap() {
            Started::AlreadyEnded { id, outcome, ended_at } => {
                assert_eq!((id, outcome), (first, SagaState::Completed));
                assert_eq!(ended_at, changed_at);
            }
            other => panic!("{other:?}"),
        }
        let second = sagas.start(&tx, order()).correlation("order-1").again().await.unwrap();
        assert!(second.is_new() && second.id() != first, "{second:?}");
        match sagas.start(&tx, order()).correlation("order-1").again().await {
            Err(SagasError::StillRuns { id }) => assert_eq!(id, second.id()),
            other => panic!("{other:?}"),
        }
        let running = sagas.start(&tx, order()).correlation("order-1").await.unwrap();
        assert_eq!(running, Started::Running { id: second.id() });
        tx.commit().await.unwrap();
        world.reaches(second.id(), SagaState::Completed).await;
        assert_eq!(world.effects(first).await.len(), world.effects(second.id()).await.len(), "each has its own");
        let kept = SagaFilter { correlation: Some(format!("order-1#{}", second.id())), ..SagaFilter::default() };
        let kept = world.outbox.sagas(&kept, None, 9).await.unwrap();
        assert_eq!(kept.iter().map(|view| view.id).collect::<Vec<_>>(), [first], "the one before is kept");
        // The longest correlation id there is.
        let long = "x".repeat(200);
        let again = async || {
            let tx = world.outbox.begin().await.unwrap();
            let started = sagas.start(&tx, PlaceOrder::number(7)).correlation(&long).again().await.unwrap();
            tx.commit().await.unwrap();
            world.reaches(started.id(), SagaState::Completed).await;
            started.id()
        };
        assert_ne!(again().await, again().await);
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn of_two_that_let_a_saga_begin_anew_at_once_one_does(temp: &TempDatabase) {
        if temp.database() == Database::Sqlite {
            return; // Two transactions that write are never open at once.
        }
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        let first = world.start(&sagas, PlaceOrder::number(1)).await;
        world.reaches(first, SagaState::Completed).await;
        let again = async || {
            let tx = world.outbox.begin().await.unwrap();
            let started = sagas.start(&tx, PlaceOrder::number(1)).correlation("order-1").again().await;
            match &started {
                Ok(_) => tx.commit().await.unwrap(),
                Err(_) => tx.rollback().await.unwrap(),
            }
            started
        };
        let (one, other) = tokio::join!(again(), again());
        let (made, other) = if one.is_ok() { (one, other) } else { (other, one) };
        let made = made.unwrap();
        assert!(made.is_new());
        match other {
            Err(SagasError::StillRuns { id }) => assert_eq!(id, made.id()),
            // The second one came when the first one's saga had ended.
            Ok(Started::New { id }) => assert_ne!(id, made.id()),
            other => panic!("{other:?}"),
        }
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn many_that_begin_anew_at_once_under_ids_that_are_new_do_not_end_one_another(temp: &TempDatabase) {
        if temp.database() == Database::Sqlite {
            return; // Two transactions that write are never open at once.
        }
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        for round in 0..10 {
            let start = async |n: i64| {
                let tx = world.outbox.begin().await.unwrap();
                let id = format!("new-{round}-{n}");
                let started = sagas.start(&tx, PlaceOrder::number(1)).correlation(id).again().await.unwrap();
                // All have begun before one commits.
                tokio::task::yield_now().await;
                tx.commit().await.unwrap();
                started
            };
            let started = futures_util::future::join_all((0..4).map(start)).await;
            assert!(started.iter().all(Started::is_new), "{started:?}");
        }
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_start_and_one_that_begins_anew_at_once_do_not_end_one_another(temp: &TempDatabase) {
        if temp.database() == Database::Sqlite {
            return; // Two transactions that write are never open at once.
        }
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        let first = world.start(&sagas, PlaceOrder::number(1)).await;
        world.reaches(first, SagaState::Completed).await;
        for _ in 0..20 {
            let start = async |again: bool| {
                let tx = world.outbox.begin().await.unwrap();
                let start = sagas.start(&tx, PlaceOrder::number(1)).correlation("order-1");
                let started = if again { start.again().await } else { start.await };
                tx.commit().await.unwrap();
                started
            };
            let (plain, again) = tokio::join!(start(false), start(true));
            let (plain, again) = (plain.unwrap(), again.unwrap());
            assert!(again.is_new() && !plain.is_new(), "{again:?} {plain:?}");
            world.reaches(again.id(), SagaState::Completed).await;
        }
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_transaction_that_begins_a_saga_anew_sees_what_is_committed_after_that(temp: &TempDatabase) {
        if temp.database() == Database::Sqlite {
            return; // Two transactions that write are never open at once.
        }
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        let first = world.start(&sagas, PlaceOrder::number(1)).await;
        world.reaches(first, SagaState::Completed).await;
        world.run("CREATE TABLE accounts (id INT NOT NULL PRIMARY KEY, balance INT NOT NULL)").await;
        world.run("INSERT INTO accounts (id, balance) VALUES (7, 100)").await;
        let tx = world.outbox.begin().await.unwrap();
        let started = sagas.start(&tx, PlaceOrder::number(1)).correlation("order-1").again().await.unwrap();
        assert!(started.is_new());
        world.run("UPDATE accounts SET balance = 40 WHERE id = 7").await;
        let row = tx.query_one_raw(Statement::from_string(tx.get_database_backend(), "SELECT balance FROM accounts"));
        let balance: i32 = row.await.unwrap().unwrap().try_get_by_index(0).unwrap();
        tx.rollback().await.unwrap();
        assert_eq!(balance, 40, "the start reads nothing in the caller's transaction");
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_transaction_starts_sagas_that_another_process_drives(temp: &TempDatabase) {
        let world = World::open(temp).await;
        // Another process: its handle of the outbox is none of the coordinator's.
        let web = Outbox::builder(temp.connect().await).source("orders").build().await.unwrap();
        let order = || PlaceOrder::number(4);
        let tx = web.begin().await.unwrap();
        let unknown = tx.start_saga(order()).await.unwrap_err();
        assert!(matches!(&unknown, SagasError::NotRegistered(_)) && unknown.to_string().contains("`client()`"), "{unknown}");
        tx.rollback().await.unwrap();
        let client = Sagas::builder(&web).register(place_order(1)).client().unwrap();
        let (older, other_client) = (Sagas::builder(&web).register(place_order(3)).client().unwrap(), client.clone());
        let tx = web.begin().await.unwrap();
        let started = tx.start_saga(order()).correlation("order-4").await.unwrap();
        let by_client = other_client.start(&tx, PlaceOrder::number(5)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(world.view(started.id()).await.definition.1, 3, "the newest version that is registered");
        assert_eq!(world.view(by_client.id()).await.definition.1, 1, "that of the client");
        drop((client, older));
        let sagas = Sagas::builder(&world.outbox).register(place_order(1)).register(place_order(3)).start().await.unwrap();
        for saga in [started.id(), by_client.id()] {
            world.reaches(saga, SagaState::Completed).await;
        }
        sagas.shutdown(SOON).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_without_definitions_or_with_faulty_ones_does_not_start() {
    #[derive(Serialize, Deserialize)]
    struct Nothing;
    async fn step(_: &mut Nothing, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
    let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await.unwrap())
        .install()
        .await
        .unwrap();
    let Err(SagasError::Invalid(faults)) = Sagas::builder(&outbox).client() else {
        panic!("it starts")
    };
    assert!(faults[0].to_string().contains("there is no saga"), "{faults:?}");
    let twice = || Saga::builder("twice", 1).step("one", step).build();
    let Err(SagasError::Invalid(faults)) =
        Sagas::builder(&outbox).register(twice()).register(twice()).client()
    else {
        panic!("it starts")
    };
    assert_eq!(faults.len(), 1, "{faults:?}");
}
