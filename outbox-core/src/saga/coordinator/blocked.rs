//! A step that needs an entity which another saga has locked.

use super::worker::Worker;
use crate::{
    event::SagaId,
    outbox::StoreError,
    saga::{
        definition::StepShape,
        lock::{WaitEdges, deadlock_victim, next_lock_poll},
        plan::{StepFailure, after_blocked},
        progress::BlockedOn,
        record::Record,
        state::Instance,
        store::SagaStore,
    },
};
use std::{collections::HashSet, time::Duration};

/// Sagas that are searched for a deadlock at most. A longer cycle is not found.
const MAX_CYCLE: usize = 1_000;

/// Why an attempt did not succeed.
pub(super) enum AttemptFailure {
    Failed(StepFailure),
    /// Another saga has locked an entity that the step needs.
    Blocked {
        entity: String,
    },
    /// The store has failed, which is no failure of the step.
    Store(StoreError),
}

impl<S: SagaStore> Worker<S> {
    /// Gives the record of a step that has to wait for a lock, and the pause before the next poll,
    /// which is zero where the lock was released meanwhile. From here to the commit no saga can
    /// release the lock, so that the one that does so later sees that this saga waits.
    ///
    /// Each poll searches for a deadlock again: of two sagas that begin to wait at the same time,
    /// neither may see the other at first.
    pub(super) async fn block(
        &self,
        tx: &S::Tx,
        saga: SagaId,
        (instance, now_us): (&Instance, i64),
        step: &StepShape,
        entity: String,
    ) -> Result<(Option<Record>, Duration), StoreError> {
        let known = instance.step(&step.name).and_then(|known| known.blocked_on.as_ref());
        let since_us =
            known.filter(|known| known.entity == entity).map_or(now_us, |known| known.since_us);
        // The lock's row is held shared until the commit: a release comes before, and is seen here,
        // or after, and sees the wait. Otherwise a wake could be lost between the two.
        let Some(holder) =
            self.store.holder_for_share(tx, &entity).await?.filter(|holder| *holder != saga)
        else {
            // A recorded attempt needs a record of its end.
            let (step, holder) = (step.name.to_string(), "none".to_owned());
            let unfinished = instance.unfinished_attempts(&step) > 0;
            return Ok((
                unfinished.then_some(Record::BlockedOnLock { step, entity, holder, since_us }),
                Duration::ZERO,
            ));
        };
        let mut others: Vec<WaitEdges> = Vec::new();
        let (mut seen, mut open) = (HashSet::from([saga]), vec![holder]);
        while !open.is_empty() && seen.len() < MAX_CYCLE {
            open.retain(|other| seen.insert(*other));
            let found = self.store.wait_edges(tx, &open).await?;
            open = found.iter().flat_map(|edges| &edges.waits_for).copied().collect();
            others.extend(found);
        }
        let this =
            WaitEdges { saga, waits_for: vec![holder], may_compensate: instance.may_compensate() };
        let victim = deadlock_victim(&this, &others);
        if let Some(other) = victim.filter(|other| *other != saga) {
            // Its own next poll may be far off.
            self.store.schedule_now(tx, other).await?;
        }
        let blocked_on = BlockedOn { entity, holder: holder.to_string(), since_us };
        let wait = next_lock_poll(now_us.saturating_sub(since_us));
        Ok((after_blocked(step, instance, blocked_on, victim == Some(saga)), wait))
    }
}
