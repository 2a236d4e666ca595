//! Finishing is fenced, and can be repeated.

use super::{
    PARTITIONS, StoreFixture, all_partitions, event, owner_of_all, read_all, renew, save, saved,
};
use crate::{
    event::RelayId,
    outbox::{Epoch, Fence, PartitionNo},
};

/// A settle whose answer was lost is sent again, and finds nothing to do.
pub async fn a_finished_event_is_gone_and_finishing_it_again_changes_nothing<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let places = saved(&fixture, &store, "a", 3).await;
    let settled = store.settler.finish(&fence, &places[..2]).await.expect("a settle succeeds");
    assert_eq!((settled.held, settled.deleted), (all_partitions(), 2));
    let settled = store.settler.finish(&fence, &places[..2]).await.expect("a settle succeeds");
    assert_eq!((settled.held, settled.deleted), (all_partitions(), 0));
    let left: Vec<_> = read_all(&store).await.iter().map(|e| (e.partition, e.id)).collect();
    assert_eq!(left, places[2..]);
    assert!(fixture.kept().await.is_empty());
}

/// As many as a settler ever sends, over all partitions.
pub async fn thousands_are_finished_at_once<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let events: Vec<_> = (0..1_600).map(|n| event(&format!("key-{n}"))).collect();
    save(&fixture, &events).await;
    let mut places: Vec<_> = read_all(&store).await.iter().map(|e| (e.partition, e.id)).collect();
    assert_eq!(places.len(), events.len());
    places.sort_unstable();
    let settled = store.settler.finish(&fence, &places).await.expect("a settle succeeds");
    assert_eq!(settled.deleted, 1_600);
    assert_eq!(fixture.counts().await, (0, 0));
}

/// Neither an earlier epoch, nor another relay, nor a relay without a row.
pub async fn an_earlier_owner_finishes_nothing<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let old = owner_of_all(&store).await;
    let places = saved(&fixture, &store, "a", 2).await;
    fixture.expire(&old.relay).await;
    let relay = RelayId::generate();
    renew(&store, &relay).await;
    let partitions = store
        .leases
        .take(&relay, Some(&old.relay), &all_partitions())
        .await
        .expect("they are taken");
    let new = Fence { relay, partitions };
    let stale_epochs = Fence { relay: new.relay.clone(), partitions: old.partitions.clone() };
    let stranger = Fence { relay: RelayId::generate(), partitions: new.partitions.clone() };
    let ahead = new.partitions.iter().map(|(p, e)| (*p, Epoch(e.0 + 1))).collect();
    let ahead = Fence { relay: new.relay.clone(), partitions: ahead };
    for fence in [&old, &stale_epochs, &stranger, &ahead] {
        let settled = store.settler.finish(fence, &places).await.expect("a settle is answered");
        assert_eq!((settled.held, settled.deleted), (vec![], 0), "{fence:?}");
    }
    assert_eq!(fixture.counts().await, (2, 0));
    assert_eq!(store.settler.finish(&new, &places).await.expect("a settle succeeds").deleted, 2);
}

/// What was lost stays untouched, what is held is finished, and the answer tells them apart.
pub async fn a_fence_of_several_partitions_writes_where_it_holds<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let events: Vec<_> = (0..200).map(|n| event(&format!("key-{n}"))).collect();
    save(&fixture, &events).await;
    let mut places: Vec<_> = read_all(&store).await.iter().map(|e| (e.partition, e.id)).collect();
    places.sort_unstable();
    let lost = PartitionNo(1);
    assert!(
        (0..PARTITIONS).all(|p| places.iter().any(|(q, _)| q.0 == p)),
        "every partition has events"
    );
    store.leases.release(&fence.relay, &fence.partitions[1..2]).await.expect("a release succeeds");
    let settled = store.settler.finish(&fence, &places).await.expect("a settle is answered");
    assert_eq!(settled.held, [PartitionNo(0), PartitionNo(2), PartitionNo(3)]);
    let left: Vec<_> = read_all(&store).await.iter().map(|e| (e.partition, e.id)).collect();
    let of_lost: Vec<_> = places.iter().copied().filter(|(p, _)| *p == lost).collect();
    assert_eq!(left, of_lost);
    assert_eq!(
        settled.deleted,
        u64::try_from(places.len() - of_lost.len()).expect("a small number")
    );
}

/// Where finished events are kept, they are moved whole, and go when their time has passed.
pub async fn kept_events_are_moved_and_pruned_when_their_time_has_passed<F: StoreFixture>() {
    let fixture = F::create(true).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let events: Vec<_> = (0..300).map(|n| event(&format!("key-{n}"))).collect();
    save(&fixture, &events).await;
    let read = read_all(&store).await;
    let mut places: Vec<_> = read.iter().map(|e| (e.partition, e.id)).collect();
    places.sort_unstable();
    assert_eq!(
        store.settler.finish(&fence, &places).await.expect("a settle succeeds").deleted,
        300
    );
    assert_eq!(store.settler.finish(&fence, &places).await.expect("a settle succeeds").deleted, 0);
    let expected: Vec<_> =
        read.iter().map(|e| (e.id, e.body.as_ref().expect("the row decodes").id)).collect();
    assert_eq!(fixture.kept().await, expected);
    assert_eq!(fixture.counts().await, (0, 0));

    assert_eq!(store.janitor.prune(1_000).await.expect("pruning succeeds"), 0);
    fixture.age().await;
    let gone: Vec<u64> = {
        let mut gone = Vec::new();
        for _ in 0..4 {
            gone.push(store.janitor.prune(120).await.expect("pruning succeeds"));
        }
        gone
    };
    assert_eq!(gone, [120, 120, 60, 0], "in bounded batches");
    assert!(fixture.kept().await.is_empty());
}
