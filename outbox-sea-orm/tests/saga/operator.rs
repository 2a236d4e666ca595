//! Operations of an operator: cancel, resume, retry from, skip; conditional, idempotent, recorded.

use crate::{
    order::{PlaceOrder, place_order},
    world::{SOON, World},
};
use outbox_core::{
    admin::OperatorNote,
    event::SagaId,
    saga::{Operation, Record, SagaAdmin, SagaFilter, SagaState},
};
use outbox_sea_orm::prelude::*;
use std::time::Duration;
use tests::{
    databases::{Database, TempDatabase},
    on_every_database, wait_until,
};

fn ann() -> OperatorNote {
    OperatorNote::new("ann", "the bank is back")
}

/// A saga that is stuck at the refund of its charge.
async fn stuck(world: &World, sagas: &Sagas) -> SagaId {
    world.let_fail(1, "ship", -1).await;
    world.let_fail(1, "refund", 99).await;
    let saga = world.start(sagas, PlaceOrder::number(1)).await;
    world.reaches(saga, SagaState::Stuck).await;
    saga
}

on_every_database! {
    async fn a_stuck_saga_is_notified_listed_and_goes_on_when_an_operator_resumes_it(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let (sender, mut notified) = tokio::sync::mpsc::unbounded_channel();
        let builder = Sagas::builder(&world.outbox).register(place_order(1)).poll(Duration::from_millis(50));
        let builder = builder.on_stuck(|_| panic!("a listener's own bug")).on_stuck(move |stuck| sender.send(stuck.clone()).unwrap());
        let sagas = builder.start().await.unwrap();
        let saga = stuck(&world, &sagas).await;
        let stuck = tests::in_time(SOON, "the listener is called with the stuck saga", notified.recv()).await.unwrap();
        assert_eq!((stuck.id, stuck.step.as_deref(), stuck.backward), (saga, Some("charge"), true));
        assert_eq!((&*stuck.definition.0, stuck.definition.1, &*stuck.correlation), ("place-order", 1, "order-1"));
        assert_eq!(stuck.reason, "refund failed");
        let filter = SagaFilter { state: Some(SagaState::Stuck), ..SagaFilter::default() };
        let seen = world.outbox.sagas(&filter, None, 10).await.unwrap();
        assert_eq!(seen.iter().map(|view| view.id).collect::<Vec<_>>(), [saga]);
        assert_eq!(world.outbox.saga_counts().await.unwrap().stuck, 1);

        world.run("DELETE FROM plans").await;
        assert!(world.outbox.operate(saga, &Operation::Resume, &ann()).await.unwrap());
        assert!(!world.outbox.operate(saga, &Operation::Resume, &ann()).await.unwrap(), "a double click");
        world.reaches(saga, SagaState::Compensated).await;
        assert_eq!(world.effects(saga).await, ["charge", "refund", "release", "reserve"]);
        let log = world.log(saga).await;
        let by = log.iter().find_map(|entry| match &entry.record {
            Record::Resumed { by } => Some(by.clone()),
            _ => None,
        });
        assert_eq!(by.map(|by| (by.name, by.reason)), Some(("ann".into(), "the bank is back".into())));
        for late in [Operation::Cancel, Operation::Resume, Operation::Skip("charge".into())] {
            assert!(!world.outbox.operate(saga, &late, &ann()).await.unwrap(), "{late:?}");
        }
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_saga_that_cannot_be_read_does_not_hide_the_others(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        sagas.shutdown(SOON).await.unwrap();
        let [damaged, sound] = [world.start(&sagas, PlaceOrder::number(1)).await, world.start(&sagas, PlaceOrder::number(2)).await];
        world.run("UPDATE outbox_sagas SET progress = '{\"state\":7}' WHERE correlation_id = 'order-1'").await;
        let seen = world.outbox.sagas(&SagaFilter::default(), None, 10).await.unwrap();
        let shown: Vec<_> = seen.iter().map(|view| (view.id, view.instance.state, view.instance.reason.is_some())).collect();
        assert_eq!(shown, [(damaged, SagaState::Running, true), (sound, SagaState::Running, false)]);
        let reason = seen[0].instance.reason.as_deref().unwrap();
        assert!(reason.contains("a saga's progress"), "{reason}");
    }

    async fn a_compensation_can_be_skipped_with_a_reason(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        let saga = stuck(&world, &sagas).await;
        assert!(!world.outbox.operate(saga, &Operation::Skip("nonsense".into()), &ann()).await.unwrap());
        assert!(world.outbox.operate(saga, &Operation::Skip("charge".into()), &ann()).await.unwrap());
        world.reaches(saga, SagaState::Compensated).await;
        assert_eq!(world.effects(saga).await, ["charge", "release", "reserve"]);
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_saga_that_is_stuck_going_forward_goes_on_from_a_step(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let definition = Saga::builder("place-order", 1)
            .step("ship", PlaceOrder::ship)
            .pivot()
            .step("wrap", PlaceOrder::wrap)
            .step("thank", PlaceOrder::thank)
            .build();
        let sagas = world.sagas(definition).await;
        world.let_fail(1, "wrap", -1).await;
        world.let_fail(2, "wrap", -1).await;
        let saga = world.start(&sagas, PlaceOrder::number(1)).await;
        let other = world.start(&sagas, PlaceOrder::number(2)).await;
        for id in [saga, other] {
            let instance = world.reaches(id, SagaState::Stuck).await;
            assert_eq!(instance.stuck_at.as_deref(), Some("wrap"));
            assert!(!world.outbox.operate(id, &Operation::Cancel, &ann()).await.unwrap(), "it is past its pivot");
        }
        assert!(world.outbox.operate(other, &Operation::Skip("wrap".into()), &ann()).await.unwrap());
        world.reaches(other, SagaState::Completed).await;
        assert_eq!(world.effects(other).await, ["ship", "thank"]);
        // Shipped once more: what it did before was put right by hand.
        world.run("DELETE FROM plans").await;
        world.run("DELETE FROM effects").await;
        assert!(world.outbox.operate(saga, &Operation::RetryFrom("ship".into()), &ann()).await.unwrap());
        world.reaches(saga, SagaState::Completed).await;
        assert_eq!(world.effects(saga).await, ["ship", "thank", "wrap"]);
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn after_a_pivot_that_was_skipped_there_is_no_way_back(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let definition = Saga::builder("place-order", 1)
            .step("reserve", PlaceOrder::reserve)
            .compensate(PlaceOrder::release)
            .step("ship", PlaceOrder::ship)
            .pivot()
            .retry(RetryPolicy::attempts(99, Duration::from_millis(300)).max_backoff(Duration::from_millis(300)))
            .step("thank", PlaceOrder::thank)
            .build();
        let sagas = world.sagas(definition).await;
        world.let_fail(1, "ship", 99).await;
        let saga = world.start(&sagas, PlaceOrder::number(1)).await;
        wait_until(SOON, "three records are written", async || tests::above(world.log(saga).await.len(), 2)).await;
        let data = world.texts("SELECT data FROM outbox_sagas").await.remove(0);
        // What the code cannot read makes it stuck, wherever it is.
        world.run("UPDATE outbox_sagas SET data = '[]'").await;
        let instance = world.reaches(saga, SagaState::Stuck).await;
        assert_eq!((instance.stuck_at.as_deref(), instance.past_pivot()), (Some("ship"), false));
        assert!(!world.outbox.operate(saga, &Operation::Skip("thank".into()), &ann()).await.unwrap());
        assert!(world.outbox.operate(saga, &Operation::Skip("ship".into()), &ann()).await.unwrap());
        let at_thank = async || tests::equals(world.view(saga).await.instance.stuck_at.as_deref(), Some("thank"));
        wait_until(SOON, "it is stuck at `thank`", at_thank).await;
        assert!(!world.outbox.operate(saga, &Operation::Cancel, &ann()).await.unwrap(), "it was shipped by hand");
        world.run(&format!("UPDATE outbox_sagas SET data = '{data}'")).await;
        assert!(world.outbox.operate(saga, &Operation::Resume, &ann()).await.unwrap());
        world.reaches(saga, SagaState::Completed).await;
        assert_eq!(world.effects(saga).await, ["reserve", "thank"]);
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_saga_is_cancelled_from_outside_between_its_steps(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let definition = Saga::builder("place-order", 1)
            .step("reserve", PlaceOrder::reserve)
            .compensate(PlaceOrder::release)
            .step("charge", PlaceOrder::charge)
            .retry(RetryPolicy::attempts(9, Duration::from_secs(3_600)).max_backoff(Duration::from_secs(3_600)))
            .build();
        let sagas = world.sagas(definition).await;
        world.let_fail(1, "charge", 9).await;
        let saga = world.start(&sagas, PlaceOrder::number(1)).await;
        wait_until(SOON, "three records are written", async || tests::equals(world.log(saga).await.len(), 3)).await;
        assert!(world.outbox.operate(saga, &Operation::Cancel, &ann()).await.unwrap());
        assert!(!world.outbox.operate(saga, &Operation::Cancel, &ann()).await.unwrap());
        let instance = world.reaches(saga, SagaState::Compensated).await;
        assert_eq!(instance.reason.as_deref(), Some("cancelled: the bank is back"));
        assert_eq!(world.effects(saga).await, ["release", "reserve"]);
        sagas.shutdown(SOON).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sagas_of_a_correlation_id_are_found_under_every_name_and_without_a_walk_over_all_sagas() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let world = World::open(&temp).await;
    let columns = "saga_id, name, version, correlation_id, state, progress, data, seq, epoch, started_at, \
        changed_at, ended_at";
    for (name, sagas) in [("place-order", 20_000), ("refund", 10), ("ship", 10)] {
        let values = format!(
            "SELECT gen_random_uuid(), '{name}', 1, 'order-' || n, 'completed', '{{}}', 'null', 1, 0, 1, 1, 1 \
             FROM generate_series(1, {sagas}) AS n"
        );
        world.run(&format!("INSERT INTO outbox_sagas ({columns}) {values}")).await;
    }
    world.run("ANALYZE outbox_sagas").await;
    let read = async |what: &str| {
        world
            .number(&format!(
                "SELECT {what} FROM pg_stat_user_tables WHERE relname = 'outbox_sagas'"
            ))
            .await
    };
    let rows = "COALESCE(seq_tup_read, 0) + COALESCE(idx_tup_fetch, 0)";
    let (scans_before, rows_before) = (read("idx_scan").await, read(rows).await);
    let filter = SagaFilter { correlation: Some("order-7".to_owned()), ..SagaFilter::default() };
    let first = world.outbox.sagas(&filter, None, 2).await.unwrap();
    let rest = world.outbox.sagas(&filter, Some(first[1].id), 2).await.unwrap();
    let mut names: Vec<&str> = first.iter().chain(&rest).map(|saga| &*saga.definition.0).collect();
    names.sort_unstable();
    assert_eq!(names, ["place-order", "refund", "ship"]);
    let nobody = SagaFilter { correlation: Some("order-0".to_owned()), ..SagaFilter::default() };
    assert_eq!(world.outbox.sagas(&nobody, None, 2).await.unwrap(), []);
    // A server counts what it has read some time later.
    wait_until(SOON, "the scans are counted", async || read("idx_scan").await > scans_before).await;
    let walked = read(rows).await - rows_before;
    assert!(walked < 1_000, "{walked} rows of 20,020 were read");
}
