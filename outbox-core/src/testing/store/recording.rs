//! What is remembered of an event, by route, and when the event may go.

use super::{StoreFixture, all_partitions, owner_of_all, read_all, renew, row, saved};
use crate::{
    event::{EventId, RelayId},
    failure::{AttemptError, DeadReason, FailureClass},
    outbox::{
        Fence, NewLetter, PartitionNo, RelayStore, RouteRow, RouteState, RouteUpdate, Settled,
    },
};
use std::time::Duration;

/// Records one update without letters.
async fn record(
    store: &RelayStore,
    fence: &Fence,
    at: (PartitionNo, EventId),
    rows: Vec<RouteRow>,
) -> Settled {
    let update = RouteUpdate { partition: at.0, id: at.1, rows, letters: Vec::new() };
    store.settler.record(fence, &[update]).await.expect("a record succeeds")
}

/// An event for several routes waits for the last of them.
pub async fn an_event_goes_when_all_its_routes_are_final<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let places = saved(&fixture, &store, "a", 2).await;
    let waiting = vec![row("ledger", RouteState::Waiting), row("billing", RouteState::Done)];
    let settled = record(&store, &fence, places[0], waiting).await;
    assert_eq!((settled.held, settled.deleted), (all_partitions(), 0));
    assert_eq!(fixture.counts().await, (2, 2));
    let settled = record(&store, &fence, places[0], vec![row("ledger", RouteState::Done)]).await;
    assert_eq!(settled.deleted, 1);
    assert_eq!(fixture.counts().await, (1, 0), "its rows went with it");
    let settled = record(
        &store,
        &fence,
        places[1],
        vec![row("ledger", RouteState::Dead), row("x", RouteState::Done)],
    )
    .await;
    assert_eq!(settled.deleted, 1, "what nobody waits for goes at once");
    assert_eq!(fixture.counts().await, (0, 0));
}

/// Counts, spans, errors and marks come back; errors get the database's time.
pub async fn what_is_remembered_is_read_again_as_it_was_written<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let place = saved(&fixture, &store, "a", 1).await[0];
    let text = "503 \"busy\" \\ \u{1f980}\n";
    let written = RouteRow {
        attempts_started: 3,
        attempts_finished: u32::MAX,
        due_in: Some(Duration::from_hours(1)),
        failing_for: Duration::from_micros(1_234_567),
        errors: vec![AttemptError::new(1, FailureClass::Transient, text)],
        redriven: true,
        ..row("billing \u{e4}", RouteState::Waiting)
    };
    let by_position = row("ledger", RouteState::Waiting);
    record(&store, &fence, place, vec![written.clone(), by_position.clone()]).await;
    let event = read_all(&store).await.swap_remove(0);
    let message = event.body.expect("the row decodes");
    let read = event.rows;
    assert_eq!(read.len(), 2);
    assert_eq!(read[1], by_position);
    let due_in = read[0].due_in.expect("it is due some time");
    assert!(due_in <= Duration::from_hours(1) && due_in > Duration::from_mins(55), "{due_in:?}");
    let stored_at = read[0].errors[0].at();
    assert!(stored_at.since(message.created_at) < Duration::from_mins(5), "{stored_at}");
    assert!(stored_at.as_micros() > 0);
    let mut expected = written;
    expected.due_in = Some(due_in);
    expected.errors[0].at = stored_at.as_micros();
    assert_eq!(read[0], expected);

    // Written again, an error keeps the time it has, and the row is replaced.
    expected.due_in = Some(Duration::ZERO);
    expected.redriven = false;
    record(&store, &fence, place, vec![expected.clone()]).await;
    assert_eq!(read_all(&store).await[0].rows[0], expected);
}

/// Nothing is written under an epoch that has passed.
pub async fn an_earlier_owner_records_nothing<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let old = owner_of_all(&store).await;
    let place = saved(&fixture, &store, "a", 1).await[0];
    fixture.expire(&old.relay).await;
    let relay = RelayId::generate();
    renew(&store, &relay).await;
    store.leases.take(&relay, Some(&old.relay), &all_partitions()).await.expect("they are taken");
    let letters = vec![NewLetter { route: "x".into(), reason: DeadReason::Rejected, parks: false }];
    let update = RouteUpdate {
        partition: place.0,
        id: place.1,
        rows: vec![row("x", RouteState::Dead)],
        letters,
    };
    let settled = store.settler.record(&old, &[update]).await.expect("a record is answered");
    assert!(settled.held.is_empty() && settled.letters.is_empty());
    assert_eq!((settled.deleted, fixture.counts().await), (0, (1, 0)));
}

/// A row without its event would never be looked at again.
pub async fn recording_an_event_that_is_gone_changes_nothing<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let place = saved(&fixture, &store, "a", 1).await[0];
    store.settler.finish(&fence, &[place]).await.expect("a settle succeeds");
    let letters = vec![NewLetter { route: "x".into(), reason: DeadReason::Rejected, parks: false }];
    let update = RouteUpdate {
        partition: place.0,
        id: place.1,
        rows: vec![row("x", RouteState::Waiting)],
        letters,
    };
    let settled = store.settler.record(&fence, &[update]).await.expect("a record succeeds");
    assert!(settled.letters.is_empty());
    assert_eq!((settled.deleted, fixture.counts().await), (0, (0, 0)));
}

/// A record whose answer was lost is sent again: the same letters, no second one.
pub async fn recording_again_changes_nothing<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let places = saved(&fixture, &store, "a", 2).await;
    let update = |n: usize, other| RouteUpdate {
        partition: places[n].0,
        id: places[n].1,
        rows: vec![row("billing", RouteState::Dead), row("ledger", other)],
        letters: vec![NewLetter {
            route: "billing".into(),
            reason: DeadReason::Rejected,
            parks: false,
        }],
    };
    // One event stays for its other route, the other goes.
    let updates = [update(0, RouteState::Waiting), update(1, RouteState::Done)];
    let first = store.settler.record(&fence, &updates).await.expect("a record succeeds");
    let again = store.settler.record(&fence, &updates).await.expect("a record succeeds");
    assert_eq!((first.deleted, again.deleted), (1, 0));
    assert_eq!(first.letters.len(), 2);
    assert_eq!(first.letters, again.letters);
    assert_eq!(fixture.counts().await, (1, 2));
}

/// A renewal tells what is due now in the relay's own partitions, and nothing else.
pub async fn due_routes_are_told_the_redriven_ones_first<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let places = saved(&fixture, &store, "a", 4).await;
    let waiting =
        |due_in, redriven| RouteRow { due_in, redriven, ..row("billing", RouteState::Waiting) };
    for (place, row) in places.iter().zip([
        waiting(Some(Duration::ZERO), false),
        waiting(None, false),
        waiting(Some(Duration::from_hours(1)), false),
        waiting(Some(Duration::ZERO), true),
    ]) {
        record(&store, &fence, *place, vec![row]).await;
    }
    let told = |renewal: crate::outbox::Renewal| -> Vec<(PartitionNo, EventId, String)> {
        renewal.due.iter().map(|due| (due.partition, due.id, due.route.to_string())).collect()
    };
    let due = |n: usize| (places[n].0, places[n].1, "billing".to_owned());
    assert_eq!(told(renew(&store, &fence.relay).await), [due(3), due(0)]);
    assert!(
        told(renew(&store, &RelayId::generate()).await).is_empty(),
        "they are not another relay's business"
    );
}

/// An event that no route confirmed is no finished event: it is in the letters.
pub async fn a_kept_event_was_confirmed_somewhere<F: StoreFixture>() {
    let fixture = F::create(true).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let places = saved(&fixture, &store, "a", 2).await;
    record(&store, &fence, places[0], vec![row("x", RouteState::Dead), row("y", RouteState::Dead)])
        .await;
    record(&store, &fence, places[1], vec![row("x", RouteState::Dead), row("y", RouteState::Done)])
        .await;
    assert_eq!(fixture.counts().await, (0, 0));
    let kept: Vec<EventId> = fixture.kept().await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(kept, [places[1].1]);
}
