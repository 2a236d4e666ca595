//! What could not go is kept whole.

use super::{PARTITIONS, StoreFixture, event, owner_of_all, read_all, renew, row, save, saved};
use crate::{
    event::{EventId, LetterId},
    failure::{AttemptError, DeadLetter, DeadReason, FailureClass},
    outbox::{
        Fence, NewLetter, PartitionNo, RelayStore, RouteRow, RouteState, RouteUpdate,
        UNPARKED_LIMIT,
    },
};
use std::time::Duration;

/// Buries the route `billing` of an event, and gives the letter.
async fn bury(
    store: &RelayStore,
    fence: &Fence,
    at: (PartitionNo, EventId),
    parks: bool,
) -> DeadLetter {
    let errors = vec![
        AttemptError::new(1, FailureClass::Transient, "503"),
        AttemptError::new(2, FailureClass::Permanent, "422 \u{1f980}"),
    ];
    // As a relay knows of a redrive that it has read, and has written down the failure before.
    let known = store.reader.fetch(&[at], u32::MAX).await.expect("a fetch succeeds").swap_remove(0);
    let redriven = known.rows.iter().any(|row| row.redriven);
    if redriven {
        let row =
            RouteRow { attempts_finished: 1, redriven, ..row("billing", RouteState::Waiting) };
        let update =
            RouteUpdate { partition: at.0, id: at.1, rows: vec![row], letters: Vec::new() };
        store.settler.record(fence, &[update]).await.expect("a record succeeds");
    }
    let dead =
        RouteRow { attempts_finished: 2, errors, redriven, ..row("billing", RouteState::Dead) };
    let letters = vec![NewLetter { route: "billing".into(), reason: DeadReason::Rejected, parks }];
    let update = RouteUpdate { partition: at.0, id: at.1, rows: vec![dead], letters };
    let settled = store.settler.record(fence, &[update]).await.expect("a record succeeds");
    let [(event, route, id)] = settled.letters.as_slice() else {
        panic!("one letter, not {:?}", settled.letters)
    };
    assert_eq!((*event, &**route), (at.1, "billing"));
    letter(store, *id).await
}

async fn letter(store: &RelayStore, id: LetterId) -> DeadLetter {
    store.settler.letters(&[id]).await.expect("letters are read").swap_remove(0)
}

/// Reason, attempts and errors, with the message as it was.
pub async fn a_letter_has_the_whole_history_and_outlives_the_event<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let place = saved(&fixture, &store, "a", 1).await[0];
    let message = read_all(&store).await.swap_remove(0).body.expect("the row decodes");
    let letter = bury(&store, &fence, place, false).await;
    assert_eq!(fixture.counts().await, (0, 0), "the event is gone");
    assert_eq!(letter.message, Some(message));
    assert_eq!(
        (letter.event_id, letter.route.as_str(), letter.reason),
        (place.1, "billing", DeadReason::Rejected)
    );
    assert_eq!((letter.attempts, letter.parks, letter.previous), (2, false, None));
    let errors: Vec<_> =
        letter.errors.iter().map(|e| (e.attempt, e.class, e.text.as_str())).collect();
    assert_eq!(
        errors,
        [(1, FailureClass::Transient, "503"), (2, FailureClass::Permanent, "422 \u{1f980}")]
    );
    assert!(letter.resolution.is_none());
    assert!(
        letter
            .errors
            .iter()
            .all(|e| letter.dead_at.since(e.at()) < Duration::from_mins(5) && e.at > 0)
    );
    assert!(
        store.settler.letters(&[LetterId(i64::MAX)]).await.expect("letters are read").is_empty()
    );
}

/// A redriven event has its old place and id; when it dies again, the new letter names the old one.
pub async fn a_letter_after_a_redrive_links_to_the_one_before<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let place = saved(&fixture, &store, "a", 1).await[0];
    let mut previous = None;
    let mut message = None;
    for _ in 0..3 {
        let dead = bury(&store, &fence, place, false).await;
        assert_eq!(dead.previous, previous);
        assert_eq!(*message.get_or_insert_with(|| dead.message.clone()), dead.message);
        previous = Some(dead.id);

        fixture.redrive(dead.id).await;
        let decided = letter(&store, dead.id).await;
        assert_eq!(
            decided.resolution.map(|resolution| resolution.action).as_deref(),
            Some("redriven")
        );
        let renewal = renew(&store, &fence.relay).await;
        assert_eq!(
            renewal.due.iter().map(|due| (due.partition, due.id)).collect::<Vec<_>>(),
            [place]
        );
        let event =
            store.reader.fetch(&[place], u32::MAX).await.expect("a fetch succeeds").swap_remove(0);
        assert_eq!(event.body.ok(), message.clone().flatten());
        let [row] = event.rows.as_slice() else { panic!("one row, not {:?}", event.rows) };
        assert_eq!(
            (row.state, row.attempts_finished, row.redriven),
            (RouteState::Waiting, 0, true)
        );
    }
}

/// A key that is parked is read in pages. A decision about its head is told by each renewal until it is forgotten.
pub async fn a_parked_key_is_read_in_pages_and_a_decision_is_told_until_it_is_forgotten<
    F: StoreFixture,
>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let places = saved(&fixture, &store, "a", 3).await;
    let (parking, other) =
        (bury(&store, &fence, places[0], true).await, bury(&store, &fence, places[1], true).await);
    bury(&store, &fence, places[2], false).await;
    let parked = async |after: LetterId, limit: u32| -> Vec<LetterId> {
        let parked =
            store.parks.parked_keys(places[0].0, after, limit).await.expect("keys are read");
        for park in &parked {
            assert_eq!(
                (park.partition, &*park.route, park.key.as_str()),
                (places[0].0, "billing", "a")
            );
        }
        parked.iter().map(|park| park.letter).collect()
    };
    let first = LetterId(i64::MIN);
    assert_eq!(parked(first, 10).await, [parking.id, other.id]);
    assert_eq!(parked(first, 1).await, [parking.id]);
    assert_eq!(parked(parking.id, 1).await, [other.id]);
    assert!(parked(other.id, 10).await.is_empty());
    let elsewhere = PartitionNo((places[0].0.0 + 1) % PARTITIONS);
    assert!(store.parks.parked_keys(elsewhere, first, 10).await.expect("keys are read").is_empty());

    let told = async || -> Vec<(LetterId, EventId, bool)> {
        let unparked = renew(&store, &fence.relay).await.unparked;
        for park in &unparked {
            assert_eq!(
                (park.partition, &*park.route, park.key.as_str()),
                (places[0].0, "billing", "a")
            );
        }
        unparked.iter().map(|park| (park.letter, park.event, park.redriven)).collect()
    };
    assert!(told().await.is_empty());
    fixture.discard(parking.id).await;
    assert_eq!(parked(first, 10).await, [other.id]);
    fixture.redrive(other.id).await;
    assert!(parked(first, 10).await.is_empty());
    let both = [(parking.id, places[0].1, false), (other.id, places[1].1, true)];
    assert_eq!(told().await, both);
    assert_eq!(told().await, both, "until they are forgotten");
    store.parks.delete_unparked(&[parking.id, parking.id]).await.expect("a row is deleted");
    assert_eq!(told().await, both[1..]);
    store.parks.delete_unparked(&[parking.id, other.id]).await.expect("rows are deleted");
    assert!(told().await.is_empty());
    assert!(
        letter(&store, parking.id)
            .await
            .resolution
            .is_some_and(|resolution| resolution.action == "discarded")
    );
}

/// Of a thousand keys that are parked a renewal says nothing, and of as many decisions it tells at most so many.
pub async fn a_renewal_does_not_grow_with_what_is_parked_or_decided<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let many = UNPARKED_LIMIT as usize + 1;
    let events: Vec<_> = (0..many).map(|n| event(&format!("key-{n}"))).collect();
    save(&fixture, &events).await;
    let mut letters = Vec::new();
    loop {
        let places: Vec<_> =
            read_all(&store).await.into_iter().map(|e| (e.partition, e.id)).collect();
        if places.is_empty() {
            break;
        }
        let update = |(partition, id): (PartitionNo, EventId)| RouteUpdate {
            partition,
            id,
            rows: vec![row("billing", RouteState::Dead)],
            letters: vec![NewLetter {
                route: "billing".into(),
                reason: DeadReason::Rejected,
                parks: true,
            }],
        };
        let updates: Vec<_> = places.into_iter().map(update).collect();
        let settled = store.settler.record(&fence, &updates).await.expect("a record succeeds");
        letters.extend(settled.letters.into_iter().map(|(_, _, letter)| letter));
    }
    assert_eq!(letters.len(), many);
    let renewal = renew(&store, &fence.relay).await;
    assert!(
        renewal.unparked.is_empty() && renewal.due.is_empty(),
        "{} told",
        renewal.unparked.len()
    );
    fixture.discard_all(&letters).await;
    assert_eq!(renew(&store, &fence.relay).await.unparked.len(), UNPARKED_LIMIT as usize);
}

/// No route takes it: one letter, without a route, and the event is gone.
pub async fn an_event_without_a_route_is_buried_alone<F: StoreFixture>() {
    let fixture = F::create(true).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let places = saved(&fixture, &store, "a", 2).await;
    let letters =
        vec![NewLetter { route: "".into(), reason: DeadReason::Unroutable, parks: false }];
    let update = RouteUpdate { partition: places[0].0, id: places[0].1, rows: Vec::new(), letters };
    let settled = store.settler.record(&fence, &[update]).await.expect("a record succeeds");
    let letter = letter(&store, settled.letters[0].2).await;
    assert_eq!(
        (letter.route.as_str(), letter.reason, letter.attempts),
        ("", DeadReason::Unroutable, 0)
    );
    assert!(letter.errors.is_empty() && letter.message.is_some());
    assert_eq!(fixture.counts().await, (1, 0));
    assert!(fixture.kept().await.is_empty(), "it was not delivered");
}
