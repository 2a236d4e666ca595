//! Coordinators obey an operator who pauses a saga.

use crate::{
    order::{PlaceOrder, place_order},
    world::{SOON, World},
};
use outbox_core::{
    admin::{ControlAction, ControlScope, ControlStore, Live, OperatorNote, SagasLive},
    saga::SagaState,
};
use std::time::Duration;
use tests::{databases::TempDatabase, equals, on_every_database, wait_until};

/// Gives the live row of the one coordinator.
async fn live(world: &World) -> Option<SagasLive> {
    let rows = world.texts("SELECT body FROM outbox_live WHERE kind = 'sagas'").await;
    match rows.iter().map(|body| serde_json::from_str(body).unwrap()).collect::<Vec<_>>().as_slice()
    {
        [] => None,
        [Live::Sagas(row)] => Some(row.clone()),
        other => panic!("{other:?}"),
    }
}

on_every_database! {
    async fn a_paused_saga_is_not_driven_and_goes_on_when_the_pause_ends(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let note = OperatorNote::new("ann", "the bank is down");
        let pause = async |lasts| {
            let scope = ControlScope::Saga;
            world.outbox.set_control(scope, "place-order", ControlAction::Pause, lasts, &note).await.unwrap();
        };
        pause(None).await;
        let sagas = world.sagas(place_order(1)).await;
        let saga = world.start(&sagas, PlaceOrder::number(1)).await;
        let expected = SagasLive {
            definitions: vec![("place-order".to_owned(), 1)],
            paused: vec!["place-order".to_owned()],
            ..SagasLive::default()
        };
        wait_until(SOON, "its live row says so", async || equals(live(&world).await, Some(expected.clone()))).await;
        assert!(world.effects(saga).await.is_empty(), "no step was attempted");
        assert_eq!(sagas.stats().borrow().claimed, 0);

        let ended = world.outbox.end_controls(ControlScope::Saga, "place-order", &note).await.unwrap();
        assert_eq!(ended, 1);
        world.reaches(saga, SagaState::Completed).await;

        // One that ends by itself, while the coordinator runs.
        pause(Some(Duration::from_secs(8))).await;
        wait_until(SOON, "its live row says so", async || live(&world).await.is_some_and(|row| !row.paused.is_empty())).await;
        let saga = world.start(&sagas, PlaceOrder::number(2)).await;
        world.reaches(saga, SagaState::Completed).await;
        sagas.shutdown(SOON).await.unwrap();
        assert_eq!(live(&world).await, None, "a coordinator that ends deletes its row");
    }
}
