//! What an operator and a relay do to one event at the same time.

use super::{StoreFixture, owner_of_all, rounds, row, saved};
use crate::{
    event::{EventId, LetterId},
    failure::DeadReason,
    outbox::{Fence, NewLetter, PartitionNo, RelayStore, RouteRow, RouteState, StoreError, Verdict},
};
use std::slice;

type Place = (PartitionNo, EventId);

/// Records rows of an event, again while the database is busy with somebody else.
async fn record(
    store: &RelayStore,
    fence: &Fence,
    at: Place,
    rows: Vec<RouteRow>,
    dead: Option<&str>,
) -> Vec<LetterId> {
    let letter = |route: &str| NewLetter { route: route.into(), reason: DeadReason::Rejected, parks: false };
    let verdict = Verdict { partition: at.0, id: at.1, rows, letters: dead.map(letter).into_iter().collect() };
    loop {
        match store.settler.record(fence, slice::from_ref(&verdict)).await {
            Ok(settled) => return settled.letters.into_iter().map(|(_, _, id)| id).collect(),
            Err(StoreError::Busy(_)) => {}
            Err(error) => panic!("a record succeeds: {error:?}"),
        }
    }
}

/// One route of an event is redriven while the last other one is settled: whoever is first, the event is there for the
/// redriven route, and for no other. With and without keeping what is finished.
pub async fn a_redrive_that_races_another_routes_last_settle_finds_its_event<F: StoreFixture>() {
    for keep in [false, true] {
        let fixture = F::create(keep).await;
        let store = fixture.relay().await;
        let fence = owner_of_all(&store).await;
        for round in 0..rounds() {
            let place = saved(&fixture, &store, "a", 1).await[0];
            let at_first = vec![row("billing", RouteState::Dead), row("ledger", RouteState::Waiting)];
            let letters = record(&store, &fence, place, at_first, Some("billing")).await;
            let [letter] = letters.as_slice() else { panic!("round {round}: one letter, not {letters:?}") };
            let ledger_is_done = vec![row("ledger", RouteState::Done)];
            let settle = record(&store, &fence, place, ledger_is_done, None);
            let (none, ()) = tokio::join!(settle, fixture.redrive(*letter));
            assert!(none.is_empty());

            let found = store.reader.fetch(&[place]).await.expect("a fetch succeeds");
            let [event] = found.as_slice() else { panic!("round {round}, keep {keep}: {} events", found.len()) };
            assert!(event.body.is_ok(), "round {round}");
            let state = |route: &str| event.rows.iter().find(|r| &*r.route == route).map(|r| (r.state, r.redriven));
            assert_eq!(state("billing"), Some((RouteState::Waiting, true)), "round {round}, keep {keep}");
            assert!(matches!(state("ledger"), None | Some((RouteState::Done, _))), "round {round}, keep {keep}");

            record(&store, &fence, place, vec![row("billing", RouteState::Done)], None).await;
            assert_eq!(fixture.counts().await, (0, 0), "round {round}, keep {keep}: it is finished");
        }
        let kept: Vec<EventId> = fixture.kept().await.into_iter().map(|(id, _)| id).collect();
        assert_eq!(kept.len(), if keep { rounds() } else { 0 }, "each is kept once");
    }
}
