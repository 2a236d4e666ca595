//! Semantic locks on entities: a saga holds them until it has ended, and other sagas see them.
//!
//! A saga commits after each step, so that others see what is not final. Where that matters, a step
//! locks what it works on; a step of another saga that needs the same entity waits, or aborts. Each
//! saga of a deadlock finds the whole cycle, and all of them agree on the victim:
//! [`deadlock_victim`].

use super::store::SagaStore;
use crate::{
    event::{SagaId, TextRule},
    outbox::StoreError,
};
use async_trait::async_trait;
use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The rule for the name of an entity.
const ENTITY: TextRule = TextRule::up_to(255);

/// First and longest pause between two polls of an entity that another saga has locked. The end of
/// that saga schedules the first waiting saga; the first poll finds deadlocks of sagas that began
/// to wait at the same time, and later polls only back that up. They are few: ten thousand waiting
/// sagas must leave the database to those that run.
const LOCK_POLL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_mins(10));
/// Factor from the time that a saga has waited to the pause before its next poll.
const GROWTH: u64 = 4;

/// The outcome of an attempt to lock an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockOutcome {
    /// The saga holds the lock now, if the transaction commits.
    Acquired,
    /// The saga held the lock before.
    AlreadyOwned,
    /// Another saga holds the lock.
    OwnedBy(SagaId),
}

/// The edges of one saga in the graph of sagas that wait for locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitEdges {
    /// The saga that waits.
    pub saga: SagaId,
    /// The sagas that hold what it waits for.
    pub waits_for: Vec<SagaId>,
    /// Whether it may start compensating: it goes forward and is not past its pivot.
    pub may_compensate: bool,
}

/// Gives the pause before the next poll of a saga that has waited for so long.
pub(super) fn next_lock_poll(waited_us: i64) -> Duration {
    let (first, longest) = LOCK_POLL;
    let waited_us = u64::try_from(waited_us).unwrap_or(0);
    Duration::from_micros(waited_us.saturating_mul(GROWTH)).clamp(first, longest)
}

/// Finds the victim of the deadlock that a saga which is about to wait is in, or closes; `None`
/// where it is in none.
///
/// The victim is the youngest saga of the cycle that may start compensating, since it has done
/// least. Where none may, it is the youngest of the cycle, and an operator has to decide.
#[must_use]
pub fn deadlock_victim(this: &WaitEdges, others: &[WaitEdges]) -> Option<SagaId> {
    let all: HashMap<SagaId, &WaitEdges> =
        others.iter().chain([this]).map(|edges| (edges.saga, edges)).collect();
    let reached = |from: &WaitEdges| {
        let (mut seen, mut open) = (HashSet::new(), from.waits_for.clone());
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                open.extend(all.get(&next).iter().flat_map(|edges| &edges.waits_for));
            }
        }
        seen
    };
    let cycle: Vec<&WaitEdges> = {
        let from_this = reached(this);
        all.values()
            .copied()
            .filter(|w| from_this.contains(&w.saga) && reached(w).contains(&this.saga))
            .collect()
    };
    cycle.iter().max_by_key(|edges| (edges.may_compensate, edges.saga)).map(|edges| edges.saga)
}

/// Locks entities; object-safe, so that a step's context does not name its store.
#[async_trait]
pub(super) trait EntityLocks<Tx>: Send + Sync {
    async fn lock_entity(
        &self,
        tx: &Tx,
        saga: SagaId,
        entity: &str,
    ) -> Result<LockOutcome, StoreError>;
}

#[async_trait]
impl<S: SagaStore> EntityLocks<S::Tx> for S {
    async fn lock_entity(
        &self,
        tx: &S::Tx,
        saga: SagaId,
        entity: &str,
    ) -> Result<LockOutcome, StoreError> {
        self.lock(tx, saga, entity).await
    }
}

/// The locks that a step acquires.
pub(super) struct AcquiredLocks<Tx> {
    store: Arc<dyn EntityLocks<Tx>>,
    acquired: Mutex<Vec<String>>,
}

impl<Tx> AcquiredLocks<Tx> {
    pub(super) fn new(store: Arc<dyn EntityLocks<Tx>>) -> Self {
        Self { store, acquired: Mutex::default() }
    }

    pub(super) async fn lock(
        &self,
        tx: &Tx,
        saga: SagaId,
        entity: &str,
    ) -> Result<LockOutcome, StoreError> {
        let outcome = self.store.lock_entity(tx, saga, entity).await?;
        if outcome == LockOutcome::Acquired {
            self.acquired.lock().unwrap_or_else(PoisonError::into_inner).push(entity.to_owned());
        }
        Ok(outcome)
    }

    /// Takes the entities that were locked, in their order.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.acquired.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<Tx> fmt::Debug for AcquiredLocks<Tx> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquiredLocks").field("acquired", &self.acquired).finish_non_exhaustive()
    }
}

/// Checks the name of an entity; gives what is wrong with it.
pub(super) fn validate_entity(entity: &str) -> Option<String> {
    (!ENTITY.allows(entity)).then(|| {
        let shown: String = entity.chars().take(40).collect();
        format!("the name of an entity, `{shown:?}`, does not have {ENTITY}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn saga(n: u128) -> SagaId {
        SagaId::from_uuid(Uuid::from_u128(n))
    }

    fn waits(n: u128, waits_for: &[u128], may_compensate: bool) -> WaitEdges {
        WaitEdges {
            saga: saga(n),
            waits_for: waits_for.iter().copied().map(saga).collect(),
            may_compensate,
        }
    }

    #[test]
    fn the_victim_of_a_deadlock_is_the_youngest_saga_that_may_compensate() {
        for (what, this, others, expected) in [
            ("no other saga waits", waits(1, &[2], true), vec![], None),
            (
                "a chain is no cycle",
                waits(1, &[2], true),
                vec![waits(2, &[3], true), waits(4, &[1], true)],
                None,
            ),
            ("two", waits(1, &[2], true), vec![waits(2, &[1], true)], Some(2)),
            (
                "two, seen by the other one",
                waits(2, &[1], true),
                vec![waits(1, &[2], true)],
                Some(2),
            ),
            (
                "the youngest is past its pivot",
                waits(1, &[2], true),
                vec![waits(2, &[1], false)],
                Some(1),
            ),
            ("all are past it", waits(1, &[2], false), vec![waits(2, &[1], false)], Some(2)),
            (
                "three",
                waits(3, &[1], true),
                vec![waits(1, &[2], true), waits(2, &[3], false)],
                Some(3),
            ),
            (
                "a cycle to which this saga only leads",
                waits(9, &[1], true),
                vec![waits(1, &[2], true), waits(2, &[1], true)],
                None,
            ),
            (
                "two cycles through one saga, which waits at two steps",
                waits(1, &[2, 3], true),
                vec![waits(2, &[1], true), waits(3, &[1], false), waits(7, &[1], true)],
                Some(2),
            ),
        ] {
            assert_eq!(deadlock_victim(&this, &others), expected.map(saga), "{what}");
        }
    }

    #[test]
    fn pauses_grow_with_the_time_waited() {
        for (waited_us, expected_ms) in [
            (-5, 100),
            (0, 100),
            (25_000, 100),
            (100_000, 400),
            (9_000_000, 36_000),
            (i64::MAX, 600_000),
        ] {
            assert_eq!(
                next_lock_poll(waited_us),
                Duration::from_millis(expected_ms),
                "after {waited_us}"
            );
        }
    }

    #[test]
    fn names_of_entities_have_limits() {
        for good in ["account/7", "Zürich", &"x".repeat(255)] {
            assert_eq!(validate_entity(good), None, "{good}");
        }
        for bad in ["", "a\0b", "a\nb", &"x".repeat(256)] {
            assert!(validate_entity(bad).is_some(), "{bad:?}");
        }
    }
}
