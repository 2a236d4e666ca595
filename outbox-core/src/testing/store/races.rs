//! What an operator and a relay do to one event at the same time.

use super::{StoreFixture, owner_of_all, read_all, rounds, row, saved};
use crate::{
    event::{EventId, LetterId},
    failure::DeadReason,
    outbox::{
        DetachedLetter, Fence, NewLetter, PartitionNo, RelayStore, RouteRow, RouteState,
        RouteUpdate, StoreError,
    },
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
    let letter =
        |route: &str| NewLetter { route: route.into(), reason: DeadReason::Rejected, parks: false };
    let update = RouteUpdate {
        partition: at.0,
        id: at.1,
        rows,
        letters: dead.map(letter).into_iter().collect(),
    };
    loop {
        match store.settler.record(fence, slice::from_ref(&update)).await {
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
            let at_first =
                vec![row("billing", RouteState::Dead), row("ledger", RouteState::Waiting)];
            let letters = record(&store, &fence, place, at_first, Some("billing")).await;
            let [letter] = letters.as_slice() else {
                panic!("round {round}: one letter, not {letters:?}")
            };
            let ledger_is_done = vec![row("ledger", RouteState::Done)];
            let settle = record(&store, &fence, place, ledger_is_done, None);
            let (none, ()) = tokio::join!(settle, fixture.redrive(*letter));
            assert!(none.is_empty());

            let found = store.reader.fetch(&[place], u32::MAX).await.expect("a fetch succeeds");
            let [event] = found.as_slice() else {
                panic!("round {round}, keep {keep}: {} events", found.len())
            };
            assert!(event.body.is_ok(), "round {round}");
            let state = |route: &str| {
                event.rows.iter().find(|r| &*r.route == route).map(|r| (r.state, r.redriven))
            };
            assert_eq!(
                state("billing"),
                Some((RouteState::Waiting, true)),
                "round {round}, keep {keep}"
            );
            assert!(
                matches!(state("ledger"), None | Some((RouteState::Done, _))),
                "round {round}, keep {keep}"
            );

            record(&store, &fence, place, vec![row("billing", RouteState::Done)], None).await;
            assert_eq!(
                fixture.counts().await,
                (0, 0),
                "round {round}, keep {keep}: it is finished"
            );
        }
        let kept: Vec<EventId> = fixture.kept().await.into_iter().map(|(id, _)| id).collect();
        assert_eq!(kept.len(), if keep { rounds() } else { 0 }, "each is kept once");
    }
}

/// The answer to a record was lost, and an operator has redriven the letter before the record is made again.
pub async fn a_record_that_is_made_again_does_not_undo_a_redrive<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    for other in [None, Some("ledger")] {
        let place = saved(&fixture, &store, "a", 1).await[0];
        let rows = || {
            let done = other.map(|route| row(route, RouteState::Done));
            [row("billing", RouteState::Dead)].into_iter().chain(done).collect::<Vec<_>>()
        };
        let letters = record(&store, &fence, place, rows(), Some("billing")).await;
        fixture.redrive(letters[0]).await;
        let again = record(&store, &fence, place, rows(), Some("billing")).await;
        assert!(again.is_empty(), "a second letter of one failure: {again:?}");
        let found = store.reader.fetch(&[place], u32::MAX).await.expect("a fetch succeeds");
        let [event] = found.as_slice() else { panic!("{} events", found.len()) };
        let billing = event
            .rows
            .iter()
            .find(|r| &*r.route == "billing")
            .expect("it is to be delivered again");
        assert_eq!((billing.state, billing.redriven), (RouteState::Waiting, true));

        // It fails again, which is news.
        let dead =
            RouteRow { redriven: true, attempts_finished: 1, ..row("billing", RouteState::Dead) };
        let second = record(&store, &fence, place, vec![dead], Some("billing")).await;
        assert_eq!(second.len(), 1);
        let written = store.settler.letters(&second).await.expect("letters are read");
        assert_eq!(written[0].previous, Some(letters[0]));
    }
}

/// The same on a route that finishes first and publishes then.
pub async fn a_carried_letter_that_is_written_again_does_not_undo_a_redrive<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let place = saved(&fixture, &store, "a", 1).await[0];
    let message = read_all(&store).await.swap_remove(0).body.expect("the row decodes");
    let fails = || DetachedLetter {
        partition: place.0,
        id: place.1,
        message: message.clone(),
        letter: NewLetter { route: "push".into(), reason: DeadReason::NotRetried, parks: false },
        errors: Vec::new(),
    };
    let is_done = || vec![RouteRow { redriven: true, ..row("push", RouteState::Done) }];
    record(&store, &fence, place, is_done(), None).await;
    let bury = async || {
        store.settler.write_detached_letters(&[fails()]).await.expect("a letter is written")
    };
    let letters = bury().await;
    assert_eq!(letters.len(), 1);
    fixture.redrive(letters[0]).await;
    let again = bury().await;
    assert!(again.is_empty(), "a second letter of one failure: {again:?}");

    // It fails again, which is news.
    record(&store, &fence, place, is_done(), None).await;
    let second = bury().await;
    assert_eq!(second.len(), 1);
    let written = store.settler.letters(&second).await.expect("letters are read");
    assert_eq!(written[0].previous, Some(letters[0]));
}
