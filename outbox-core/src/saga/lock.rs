//! Semantic locks: marks on entities, which other sagas see until the saga that set them has ended.
//!
//! A saga commits after each step, so that others see what is not final. Where that matters, a step marks what it works on;
//! another saga that wants to mark it too waits, or refuses. A ring of sagas that wait for each other is found by each of
//! them, and they all come to the same view of who gives way: [`gives_way`].

use super::store::SagaStore;
use crate::{event::SagaId, outbox::StoreError};
use async_trait::async_trait;
use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Longest name of an entity, in bytes.
const MAX_ENTITY: usize = 255;

/// First and longest pause between two looks at an entity that another saga has marked. The end of that saga makes the
/// first of those that wait due; the first look finds rings of sagas that began to wait at the same time, later ones are
/// for what nobody thought of. They are few: ten thousand that wait must leave the database to those that work.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_mins(10));
/// How many times longer than it has waited a saga waits until it looks again.
const GROWTH: u64 = 4;

/// What an attempt to mark an entity came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// It is marked now, if the transaction commits.
    New,
    /// The saga had marked it before.
    Before,
    /// Another saga has marked it.
    ByOther(SagaId),
}

/// A saga that waits for entities that others have marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The saga.
    pub saga: SagaId,
    /// Those for which it waits.
    pub waits_for: Vec<SagaId>,
    /// Whether it may turn back: it goes forward and is not past its pivot.
    pub may_turn_back: bool,
}

/// How long a saga that has waited for so long waits until it looks again.
pub(super) fn next_look(waited_us: i64) -> Duration {
    let (first, longest) = LOOKS;
    let waited_us = u64::try_from(waited_us).unwrap_or(0);
    Duration::from_micros(waited_us.saturating_mul(GROWTH)).clamp(first, longest)
}

/// Finds which saga gives way, where one that is about to wait closes a ring, or is in one; `None` where it is in none.
///
/// Among all that wait for each other it is the youngest that may turn back: what it has done is least. Where none may,
/// the youngest of them; then somebody has to decide.
#[must_use]
pub fn gives_way(this: &Waiting, others: &[Waiting]) -> Option<SagaId> {
    let all: HashMap<SagaId, &Waiting> =
        others.iter().chain([this]).map(|waiting| (waiting.saga, waiting)).collect();
    let reached = |from: &Waiting| {
        let (mut seen, mut open) = (HashSet::new(), from.waits_for.clone());
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                open.extend(all.get(&next).iter().flat_map(|waiting| &waiting.waits_for));
            }
        }
        seen
    };
    let ring: Vec<&Waiting> = {
        let from_this = reached(this);
        all.values()
            .copied()
            .filter(|w| from_this.contains(&w.saga) && reached(w).contains(&this.saga))
            .collect()
    };
    ring.iter()
        .max_by_key(|waiting| (waiting.may_turn_back, waiting.saga))
        .map(|waiting| waiting.saga)
}

/// Marks entities, whatever the store is.
#[async_trait]
pub(super) trait Marks<Tx>: Send + Sync {
    async fn mark(&self, tx: &Tx, saga: SagaId, entity: &str) -> Result<Marked, StoreError>;
}

#[async_trait]
impl<S: SagaStore> Marks<S::Tx> for S {
    async fn mark(&self, tx: &S::Tx, saga: SagaId, entity: &str) -> Result<Marked, StoreError> {
        self.lock(tx, saga, entity).await
    }
}

/// What a step marks.
pub(super) struct Marker<Tx> {
    store: Arc<dyn Marks<Tx>>,
    new: Mutex<Vec<String>>,
}

impl<Tx> Marker<Tx> {
    pub(super) fn new(store: Arc<dyn Marks<Tx>>) -> Self {
        Self { store, new: Mutex::default() }
    }

    pub(super) async fn mark(
        &self,
        tx: &Tx,
        saga: SagaId,
        entity: &str,
    ) -> Result<Marked, StoreError> {
        let marked = self.store.mark(tx, saga, entity).await?;
        if marked == Marked::New {
            self.new.lock().unwrap_or_else(PoisonError::into_inner).push(entity.to_owned());
        }
        Ok(marked)
    }

    /// Gives what was marked, in this order.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.new.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<Tx> fmt::Debug for Marker<Tx> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Marker").field("new", &self.new).finish_non_exhaustive()
    }
}

/// Says what is wrong with the name of an entity.
pub(super) fn fault_of(entity: &str) -> Option<String> {
    let fits =
        !entity.is_empty() && entity.len() <= MAX_ENTITY && !entity.chars().any(char::is_control);
    (!fits).then(|| {
        let shown: String = entity.chars().take(40).collect();
        format!("the name of an entity, `{shown:?}`, does not have 1 to {MAX_ENTITY} bytes without control characters")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn saga(n: u128) -> SagaId {
        SagaId::from_uuid(Uuid::from_u128(n))
    }

    fn waits(n: u128, waits_for: &[u128], may_turn_back: bool) -> Waiting {
        Waiting {
            saga: saga(n),
            waits_for: waits_for.iter().copied().map(saga).collect(),
            may_turn_back,
        }
    }

    #[test]
    fn of_those_that_wait_for_each_other_the_youngest_that_may_turn_back_gives_way() {
        for (what, this, others, expected) in [
            ("nobody else waits", waits(1, &[2], true), vec![], None),
            (
                "a line is no ring",
                waits(1, &[2], true),
                vec![waits(2, &[3], true), waits(4, &[1], true)],
                None,
            ),
            ("two", waits(1, &[2], true), vec![waits(2, &[1], true)], Some(2)),
            ("two, the other one asks", waits(2, &[1], true), vec![waits(1, &[2], true)], Some(2)),
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
                "a ring to which this one only leads",
                waits(9, &[1], true),
                vec![waits(1, &[2], true), waits(2, &[1], true)],
                None,
            ),
            (
                "two rings through one saga, which waits at two places",
                waits(1, &[2, 3], true),
                vec![waits(2, &[1], true), waits(3, &[1], false), waits(7, &[1], true)],
                Some(2),
            ),
        ] {
            assert_eq!(gives_way(&this, &others), expected.map(saga), "{what}");
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
                next_look(waited_us),
                Duration::from_millis(expected_ms),
                "after {waited_us}"
            );
        }
    }

    #[test]
    fn names_of_entities_have_limits() {
        for good in ["account/7", "Zürich", &"x".repeat(MAX_ENTITY)] {
            assert_eq!(fault_of(good), None, "{good}");
        }
        for bad in ["", "a\0b", "a\nb", &"x".repeat(MAX_ENTITY + 1)] {
            assert!(fault_of(bad).is_some(), "{bad:?}");
        }
    }
}
