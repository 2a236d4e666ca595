//! Which relay owns which partition: a pure function of the relays and partitions that a renewal
//! has read.

use super::{Epoch, PartitionNo};
use crate::event::RelayId;

/// One relay as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayRow {
    /// Its identity.
    pub id: RelayId,
    /// Hash of its route set.
    pub routes: u64,
    /// Whether its lease is valid, by the database's clock.
    pub live: bool,
}

/// One partition as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOwner {
    /// Its number.
    pub partition: PartitionNo,
    /// Its owner, if any.
    pub owner: Option<RelayId>,
    /// How many owners it has had.
    pub epoch: Epoch,
}

/// All relays and all partitions, in one snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseView {
    /// Sorted by identity.
    pub relays: Vec<RelayRow>,
    /// Sorted by number.
    pub partitions: Vec<PartitionOwner>,
}

/// The steps by which a relay comes to its share of the partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnershipPlan {
    /// Partitions that it owns, with epochs.
    pub owned: Vec<(PartitionNo, Epoch)>,
    /// Free partitions to take.
    pub take_free: Vec<PartitionNo>,
    /// Partitions of dead relays to take over, by relay.
    pub take_over: Vec<(RelayId, Vec<PartitionNo>)>,
    /// Surplus partitions to release when nothing of them is in flight.
    pub release: Vec<PartitionNo>,
    /// A live relay with other routes, for which this one waits.
    pub waits_for: Option<RelayId>,
    /// Whether a live relay has other routes than this one: that relay waits for its turn, or is
    /// about to.
    pub other_routes_wait: bool,
}

/// Plans by fair share: `n / live` partitions, one more for the first `n % live` relays by
/// identity.
///
/// A relay whose routes differ from those of a live owner takes no partition until that owner is
/// gone. Relays that own nothing and whose routes differ from an owner's do not count as live: they
/// wait too.
#[must_use]
pub fn plan_ownership(me: &RelayId, routes: u64, view: &LeaseView) -> OwnershipPlan {
    let owner_of = |p: &PartitionOwner, id: &RelayId| p.owner.as_ref() == Some(id);
    let owns = |id: &RelayId| view.partitions.iter().any(|p| owner_of(p, id));
    let owned: Vec<_> = view
        .partitions
        .iter()
        .filter(|p| owner_of(p, me))
        .map(|p| (p.partition, p.epoch))
        .collect();
    let other_routes_wait = view.relays.iter().any(|r| r.live && r.routes != routes && r.id != *me);
    let mut plan = OwnershipPlan { owned, other_routes_wait, ..OwnershipPlan::default() };

    if plan.owned.is_empty()
        && let Some(other) =
            view.relays.iter().find(|r| r.live && r.routes != routes && r.id != *me && owns(&r.id))
    {
        plan.waits_for = Some(other.id.clone());
        return plan;
    }

    let live: Vec<&RelayId> = view
        .relays
        .iter()
        .filter(|r| r.id == *me || (r.live && r.routes == routes))
        .map(|r| &r.id)
        .collect();
    let n = view.partitions.len();
    let rank = live.iter().position(|id| *id == me).unwrap_or(0);
    let count = live.len().max(1);
    let share = n / count + usize::from(rank < n % count);

    if plan.owned.len() > share {
        plan.release = plan.owned[share..].iter().map(|(p, _)| *p).collect();
        return plan;
    }
    let mut wanted = share - plan.owned.len();
    for p in view.partitions.iter().filter(|p| p.owner.is_none()).take(wanted) {
        plan.take_free.push(p.partition);
    }
    wanted -= plan.take_free.len();
    // An owner without a row is dead too: its row was removed by hand.
    let dead =
        |id: &RelayId| id != me && view.relays.iter().find(|r| r.id == *id).is_none_or(|r| !r.live);
    for p in &view.partitions {
        let Some(owner) = p.owner.as_ref().filter(|id| wanted > 0 && dead(id)) else { continue };
        match plan.take_over.iter_mut().find(|(id, _)| id == owner) {
            Some((_, list)) => list.push(p.partition),
            None => plan.take_over.push((owner.clone(), vec![p.partition])),
        }
        wanted -= 1;
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(id: &str, routes: u64, live: bool) -> RelayRow {
        RelayRow { id: RelayId::from_stored(id), routes, live }
    }

    fn view(relays: Vec<RelayRow>, owners: &[Option<&str>]) -> LeaseView {
        let partitions = owners
            .iter()
            .zip(0..)
            .map(|(o, n)| PartitionOwner {
                partition: PartitionNo(n),
                owner: o.map(RelayId::from_stored),
                epoch: Epoch(1),
            })
            .collect();
        LeaseView { relays, partitions }
    }

    fn numbers(list: &[PartitionNo]) -> Vec<u16> {
        list.iter().map(|p| p.0).collect()
    }

    #[test]
    fn the_first_relay_takes_all_that_is_free() {
        let view = view(vec![relay("a", 1, true)], &[None; 16]);
        assert_eq!(plan_ownership(&RelayId::from_stored("a"), 1, &view).take_free.len(), 16);
    }

    #[test]
    fn shares_are_fair_and_add_up() {
        let ids = ["a", "b", "c"];
        let view = view(ids.iter().map(|id| relay(id, 1, true)).collect(), &[None; 16]);
        let shares: Vec<usize> = ids
            .iter()
            .map(|id| plan_ownership(&RelayId::from_stored(id), 1, &view).take_free.len())
            .collect();
        assert_eq!(shares, [6, 5, 5]);
    }

    #[test]
    fn surplus_is_released_and_nothing_taken() {
        let view = view(
            vec![relay("a", 1, true), relay("b", 1, true)],
            &[Some("a"), Some("a"), Some("a"), Some("a")],
        );
        let plan = plan_ownership(&RelayId::from_stored("a"), 1, &view);
        assert_eq!(numbers(&plan.release), [2, 3]);
        let plan = plan_ownership(&RelayId::from_stored("b"), 1, &view);
        assert!(plan.take_free.is_empty() && plan.take_over.is_empty());
    }

    #[test]
    fn partitions_of_dead_relays_are_taken_over() {
        let view = view(
            vec![relay("a", 1, true), relay("b", 1, false)],
            &[Some("a"), Some("b"), Some("gone"), None],
        );
        let plan = plan_ownership(&RelayId::from_stored("a"), 1, &view);
        assert_eq!(numbers(&plan.take_free), [3]);
        let dead: Vec<_> = plan.take_over.iter().map(|(id, p)| (id.as_str(), numbers(p))).collect();
        assert_eq!(dead, [("b", vec![1]), ("gone", vec![2])]);
    }

    #[test]
    fn a_relay_with_other_routes_waits_for_the_owner_and_names_it() {
        let view = view(vec![relay("a", 1, true), relay("b", 2, true)], &[Some("a"), None]);
        let plan = plan_ownership(&RelayId::from_stored("b"), 2, &view);
        assert_eq!(plan.waits_for, Some(RelayId::from_stored("a")));
        assert!(plan.take_free.is_empty());
        let plan = plan_ownership(&RelayId::from_stored("a"), 1, &view);
        assert_eq!((numbers(&plan.take_free), plan.waits_for), (vec![1], None));
        assert!(plan.other_routes_wait, "the owner knows that a relay with other routes waits");
    }

    #[test]
    fn a_dead_relay_with_other_routes_stops_no_other_relay() {
        let view = view(vec![relay("a", 1, false), relay("b", 2, true)], &[Some("a")]);
        let plan = plan_ownership(&RelayId::from_stored("b"), 2, &view);
        assert_eq!(plan.take_over.len(), 1);
        assert!(!plan.other_routes_wait);
    }
}
