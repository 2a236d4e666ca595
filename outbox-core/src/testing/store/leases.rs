//! One owner a partition, whatever happens at once.

use super::{LONG, PARTITIONS, ROUTES, StoreFixture, all_partitions, owner_of_all, renew, rounds};
use crate::{
    event::RelayId,
    outbox::{Epoch, PartitionNo, RelayStore, Renewal},
};
use std::time::Duration;

fn owned(renewal: &Renewal, relay: &RelayId) -> Vec<(PartitionNo, Epoch)> {
    let mine = renewal.view.partitions.iter().filter(|p| p.owner.as_ref() == Some(relay));
    mine.map(|p| (p.partition, p.epoch)).collect()
}

async fn take(
    store: &RelayStore,
    relay: &RelayId,
    from: Option<&RelayId>,
) -> Vec<(PartitionNo, Epoch)> {
    store.leases.take(relay, from, &all_partitions()).await.expect("a take is answered")
}

/// The first renewal registers, later ones know; the view has everybody and everything, in order.
pub async fn a_relay_owns_what_it_takes<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let relay = RelayId::generate();
    let first = renew(&store, &relay).await;
    assert!(!first.known);
    assert_eq!(first.view.partitions.len(), usize::from(PARTITIONS));
    assert!(first.view.partitions.iter().all(|p| p.owner.is_none()));
    let [seen] = first.view.relays.as_slice() else {
        panic!("one relay, not {:?}", first.view.relays)
    };
    assert_eq!((&seen.id, seen.routes, seen.live), (&relay, ROUTES, true));
    let wanted = [PartitionNo(2), PartitionNo(0)];
    let taken = store.leases.take(&relay, None, &wanted).await.expect("free partitions are taken");
    assert_eq!(taken.iter().map(|(p, _)| *p).collect::<Vec<_>>(), [PartitionNo(0), PartitionNo(2)]);
    let second = renew(&store, &relay).await;
    assert!(second.known);
    assert_eq!(owned(&second, &relay), taken);
    let numbers: Vec<u16> = second.view.partitions.iter().map(|p| p.partition.0).collect();
    assert_eq!(numbers, (0..PARTITIONS).collect::<Vec<_>>());
    assert!(
        take(&store, &relay, None).await.iter().all(|(p, _)| !wanted.contains(p)),
        "its own are not free"
    );
}

/// However many want the same ones at once.
pub async fn two_relays_never_take_the_same_partition<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let mut relays = Vec::new();
    for _ in 0..4 {
        let (store, relay) = (fixture.relay().await, RelayId::generate());
        renew(&store, &relay).await;
        relays.push((store, relay));
    }
    for _ in 0..20 {
        let tries = relays.iter().map(|(store, relay)| async move {
            // A lock that another holds is skipped, or the database says that it is busy.
            store.leases.take(relay, None, &all_partitions()).await.unwrap_or_default()
        });
        let taken = futures_util::future::join_all(tries).await;
        let mut all: Vec<PartitionNo> = taken.iter().flatten().map(|(p, _)| *p).collect();
        all.sort_unstable();
        let before = all.len();
        all.dedup();
        assert_eq!(all.len(), before, "a partition was taken twice: {taken:?}");
        let (store, _) = &relays[0];
        let view = renew(store, &relays[0].1).await.view;
        for ((_, relay), taken) in relays.iter().zip(&taken) {
            for (partition, epoch) in taken {
                let seen = &view.partitions[usize::from(partition.0)];
                assert_eq!((seen.owner.as_ref(), seen.epoch), (Some(relay), *epoch));
            }
        }
        for ((store, relay), taken) in relays.iter().zip(&taken) {
            store.leases.release(relay, taken).await.expect("a release succeeds");
        }
    }
}

/// Nobody takes from the living, under whatever name.
pub async fn a_live_relay_keeps_its_partitions<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let other = RelayId::generate();
    renew(&store, &other).await;
    assert!(take(&store, &other, Some(&fence.relay)).await.is_empty());
    assert!(take(&store, &other, None).await.is_empty());
    assert_eq!(owned(&renew(&store, &fence.relay).await, &fence.relay), fence.partitions);
}

/// A takeover raises the epochs; the dead relay's row goes with its last partition.
pub async fn a_dead_relay_is_taken_from_under_new_epochs<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let dead = owner_of_all(&store).await;
    fixture.expire(&dead.relay).await;
    let relay = RelayId::generate();
    let view = renew(&store, &relay).await.view;
    assert!(view.relays.iter().any(|r| r.id == dead.relay && !r.live));

    let first =
        store.leases.take(&relay, Some(&dead.relay), &[PartitionNo(3)]).await.expect("it is taken");
    assert_eq!(first, [(PartitionNo(3), Epoch(dead.partitions[3].1.0 + 1))]);
    let view = renew(&store, &relay).await.view;
    assert!(view.relays.iter().any(|r| r.id == dead.relay), "it owns something still");
    let rest = take(&store, &relay, Some(&dead.relay)).await;
    assert_eq!(rest.len(), 3);
    for ((partition, epoch), (_, before)) in rest.iter().zip(&dead.partitions) {
        assert!(epoch > before, "partition {partition}");
    }
    let view = renew(&store, &relay).await.view;
    assert_eq!(view.relays.iter().map(|r| &r.id).collect::<Vec<_>>(), [&relay]);
    assert!(
        owned(&renew(&store, &dead.relay).await, &dead.relay).is_empty(),
        "it comes back as one that owns nothing"
    );
}

/// Only owner and epoch decide, not the time, as long as nobody took anything.
pub async fn a_lease_that_ran_out_and_was_not_taken_is_renewed<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    fixture.expire(&fence.relay).await;
    let renewal = renew(&store, &fence.relay).await;
    assert!(renewal.known);
    assert_eq!(owned(&renewal, &fence.relay), fence.partitions, "the same epochs");
    assert!(renewal.view.relays.iter().all(|r| r.live));
    let other = RelayId::generate();
    renew(&store, &other).await;
    assert!(take(&store, &other, Some(&fence.relay)).await.is_empty());
    let short =
        store.leases.renew(&fence.relay, ROUTES, Duration::ZERO).await.expect("a renewal succeeds");
    assert!(short.known);
}

/// An owner without a row is dead: its partitions are free to take, and it knows at its next renewal.
pub async fn a_relay_whose_row_was_removed_begins_with_nothing<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let (fence, other) = (owner_of_all(&store).await, RelayId::generate());
    renew(&store, &other).await;
    fixture.remove(&fence.relay).await;
    let taken = store
        .leases
        .take(&other, Some(&fence.relay), &[PartitionNo(1)])
        .await
        .expect("it is taken");
    assert_eq!(taken.len(), 1);
    let renewal = renew(&store, &fence.relay).await;
    assert!(!renewal.known);
    assert!(owned(&renewal, &fence.relay).is_empty());
    assert_eq!(owned(&renewal, &other), taken);
    assert!(
        renewal.view.partitions.iter().filter(|p| p.owner.is_none()).count() == 3,
        "the rest is free"
    );
    assert!(store.settler.finish(&fence, &[]).await.expect("a settle is answered").held.is_empty());
}

/// A release is of an epoch: what another took meanwhile stays with them.
pub async fn what_is_released_is_free_and_what_was_lost_is_not_released<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    store.leases.release(&fence.relay, &fence.partitions[..2]).await.expect("a release succeeds");
    let again = take(&store, &fence.relay, None).await;
    assert_eq!(again.iter().map(|(p, _)| *p).collect::<Vec<_>>(), [PartitionNo(0), PartitionNo(1)]);
    for ((_, epoch), (_, before)) in again.iter().zip(&fence.partitions) {
        assert!(epoch > before, "who takes a partition again is another owner");
    }
    store
        .leases
        .release(&fence.relay, &fence.partitions[..2])
        .await
        .expect("a release is answered");
    store.leases.release(&RelayId::generate(), &again).await.expect("a release is answered");
    assert_eq!(
        owned(&renew(&store, &fence.relay).await, &fence.relay).len(),
        usize::from(PARTITIONS)
    );
}

/// Its partitions are free at once, its row is gone, and leaving twice is no fault.
pub async fn a_relay_that_leaves_leaves_nothing<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    for _ in 0..2 {
        store.leases.deregister(&fence.relay).await.expect("deregistering succeeds");
    }
    let other = RelayId::generate();
    let view = renew(&store, &other).await.view;
    assert_eq!(view.relays.iter().map(|r| &r.id).collect::<Vec<_>>(), [&other]);
    assert_eq!(take(&store, &other, None).await.len(), usize::from(PARTITIONS));
}

/// Either the renewal came first and nothing was taken, or the takeover did and the renewal shows it.
pub async fn a_renewal_that_races_a_takeover_never_leaves_two_owners<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let (one, two) = (fixture.relay().await, fixture.relay().await);
    let (a, b) = (RelayId::generate(), RelayId::generate());
    renew(&one, &a).await;
    renew(&two, &b).await;
    let mut owner = take(&one, &a, None).await;
    let (mut renewed, mut taken_over, all) = (0, 0, all_partitions());
    for round in 0..rounds() {
        fixture.expire(&a).await;
        let (renewal, taken) =
            tokio::join!(one.leases.renew(&a, ROUTES, LONG), two.leases.take(&b, Some(&a), &all));
        // A database that is busy has done nothing; the keeper tries again.
        let taken = taken.unwrap_or_default();
        if let Ok(renewal) = renewal {
            let believed = owned(&renewal, &a);
            let both: Vec<_> =
                taken.iter().filter(|(p, _)| believed.iter().any(|(q, _)| p == q)).collect();
            assert!(both.is_empty(), "round {round}: two owners of {both:?}");
            assert_eq!(
                believed.len() + taken.len(),
                owner.len(),
                "round {round}: {believed:?} and {taken:?}"
            );
        }
        if taken.is_empty() {
            renewed += 1;
            assert_eq!(owned(&renew(&one, &a).await, &a), owner);
        } else {
            taken_over += 1;
            two.leases.release(&b, &taken).await.expect("a release succeeds");
            renew(&one, &a).await;
            owner = take(&one, &a, None).await;
        }
        assert_eq!(owner.len(), usize::from(PARTITIONS));
    }
    assert!(renewed + taken_over > 0);
}
