//! Claims: one coordinator drives a saga at a time.

use crate::{
    order::{PlaceOrder, place_order},
    world::{SOON, World},
};
use outbox_core::{
    outbox::Store,
    saga::{DefinitionId, SagaSource, SagaState, SagaStore},
};
use sea_orm::{ConnectionTrait, EntityTrait};
use std::{sync::Arc, time::Duration};
use tests::{databases::TempDatabase, on_every_database};

fn definitions() -> Vec<DefinitionId> {
    vec![(Arc::from("place-order"), 1)]
}

on_every_database! {
    async fn a_claim_lasts_for_its_lease_and_an_older_one_opens_nothing(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        sagas.shutdown(SOON).await.unwrap();
        for n in 1..=3 {
            world.start(&sagas, PlaceOrder::number(n)).await;
        }
        let long = Duration::from_secs(600);
        let first = world.outbox.claim(&definitions(), long, 2).await.unwrap();
        let rest = world.outbox.claim(&definitions(), long, 5).await.unwrap();
        assert_eq!((first.len(), rest.len()), (2, 1));
        assert!(world.outbox.claim(&definitions(), long, 5).await.unwrap().is_empty());
        assert!(world.outbox.claim(&[(Arc::from("place-order"), 2)], long, 5).await.unwrap().is_empty());

        let tx = Store::begin(&world.outbox).await.unwrap();
        assert!(SagaStore::open(&world.outbox, &tx, &first[0]).await.unwrap().is_some());
        tx.rollback().await.unwrap();
        world.outbox.release(&first[..1]).await.unwrap();
        let again = world.outbox.claim(&definitions(), long, 5).await.unwrap();
        assert_eq!(again.iter().map(|c| c.id).collect::<Vec<_>>(), [first[0].id]);
        assert!(!first[0].taken_over && !again[0].taken_over, "no claim ran out");
        let tx = Store::begin(&world.outbox).await.unwrap();
        assert!(SagaStore::open(&world.outbox, &tx, &first[0]).await.unwrap().is_none(), "the earlier claim");
        assert!(SagaStore::open(&world.outbox, &tx, &again[0]).await.unwrap().is_some());
        tx.rollback().await.unwrap();
        // A release under an old epoch does nothing.
        world.outbox.release(&first[..1]).await.unwrap();
        assert!(world.outbox.claim(&definitions(), long, 5).await.unwrap().is_empty());
        // A claim that ran out is taken over.
        world.run("UPDATE outbox_sagas SET due_at = 1").await;
        let late = world.outbox.claim(&definitions(), long, 5).await.unwrap();
        assert_eq!(late.iter().filter(|claim| claim.taken_over).count(), 3, "{late:?}");
    }

    async fn sagas_that_ended_long_ago_are_pruned_and_no_others(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        for (n, failing) in [(1, None), (2, Some("reserve")), (3, None), (4, Some("thank"))] {
            if let Some(step) = failing {
                world.let_fail(n, step, -1).await;
            }
            world.start(&sagas, PlaceOrder::number(n)).await;
        }
        world.ended(4).await;
        sagas.shutdown(SOON).await.unwrap();
        world.start(&sagas, PlaceOrder::number(5)).await;
        let day = Duration::from_secs(86_400);
        assert_eq!(world.outbox.prune(day, 10).await.unwrap(), 0);
        world.run("UPDATE outbox_sagas SET ended_at = ended_at - 90000000000 WHERE correlation_id <> 'order-3'").await;
        assert_eq!(world.outbox.prune(day, 10).await.unwrap(), 3, "completed, compensated, completed");
        let left = world.texts("SELECT correlation_id FROM outbox_sagas ORDER BY correlation_id").await;
        assert_eq!(left, ["order-3", "order-5"]);
        assert_eq!(world.number("SELECT COUNT(DISTINCT saga_id) FROM outbox_saga_log").await, 2);
    }

    async fn the_tables_reject_states_that_no_transition_leads_to(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let id = if temp.database() == tests::databases::Database::Postgres {
            "'00000000-0000-0000-0000-000000000001'"
        } else {
            "x'00000000000000000000000000000001'"
        };
        let row = |state: &str, due: &str, version: i32, seq: i32| {
            format!(
                "INSERT INTO outbox_sagas (saga_id, name, version, correlation_id, state, progress, data, seq, epoch, due_at, \
                 started_at, changed_at) VALUES ({id}, 'n', {version}, 'c', '{state}', '{{}}', '{{}}', {seq}, 0, {due}, 1, 1)"
            )
        };
        for impossible in [
            row("waiting", "1", 1, 1),
            row("running", "NULL", 1, 1),
            row("compensating", "NULL", 1, 1),
            row("stuck", "1", 1, 1),
            row("completed", "1", 1, 1),
            row("compensated", "1", 1, 1),
            row("running", "1", 0, 1),
            row("running", "1", 1, 0),
        ] {
            assert!(world.db.execute_unprepared(&impossible).await.is_err(), "{impossible}");
        }
        world.run(&row("running", "1", 1, 1)).await;
        // As SeaORM entities see them.
        let saga = outbox_sea_orm::entity::saga::Entity::find().one(&world.db).await.unwrap().unwrap();
        assert_eq!((saga.name.as_str(), saga.due_at, saga.deadline_at), ("n", Some(1), None));
        assert!(outbox_sea_orm::entity::saga_log::Entity::find().one(&world.db).await.unwrap().is_none());
    }

    async fn two_coordinators_share_the_work_and_do_nothing_twice(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let (one, two) = (world.sagas(place_order(1)).await, world.sagas(place_order(1)).await);
        let mut ids = Vec::new();
        for n in 1..=40 {
            if n % 4 == 0 {
                world.let_fail(n, "ship", -1).await;
            }
            ids.push(world.start(if n % 2 == 0 { &one } else { &two }, PlaceOrder::number(n)).await);
        }
        world.ended(40).await;
        for (n, id) in (1..).zip(&ids) {
            let (state, effects) = if n % 4 == 0 {
                (SagaState::Compensated, vec!["charge", "refund", "release", "reserve"])
            } else {
                (SagaState::Completed, vec!["charge", "reserve", "ship", "thank"])
            };
            world.reaches(*id, state).await;
            assert_eq!(world.effects(*id).await, effects);
        }
        one.shutdown(SOON).await.unwrap();
        two.shutdown(SOON).await.unwrap();
    }

    async fn a_shutdown_releases_claims_and_the_next_coordinator_goes_on(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        for n in 1..=20 {
            world.start(&sagas, PlaceOrder::number(n)).await;
        }
        sagas.shutdown(SOON).await.unwrap();
        assert_eq!(sagas.exits().borrow().failed, 0);
        let next = world.sagas(place_order(1)).await;
        world.ended(20).await;
        assert_eq!(world.number("SELECT COUNT(*) FROM effects").await, 80);
        next.shutdown(SOON).await.unwrap();
    }
}
