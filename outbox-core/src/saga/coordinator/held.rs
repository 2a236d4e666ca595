//! What follows where another saga has marked an entity that a step needs.

use super::worker::Worker;
use crate::{
    event::SagaId,
    outbox::StoreError,
    saga::{
        definition::StepShape,
        lock::{Waiting, gives_way, next_look},
        plan::{Failed, after_held},
        progress::Held,
        record::Record,
        state::Instance,
        store::SagaStore,
    },
};
use std::{collections::HashSet, time::Duration};

/// Sagas that are looked at for a ring of those that wait for each other. One that is longer is not found.
const LARGEST_RING: usize = 1_000;

/// Why an attempt came to nothing.
pub(super) enum Fell {
    Failed(Failed),
    /// Another saga has marked an entity that it needs.
    Held {
        entity: String,
    },
    /// The store failed, and not the step.
    Store(StoreError),
}

impl<S: SagaStore> Worker<S> {
    /// Says what is to be written down where a saga has to wait for another one, and how long it waits until it looks
    /// again: not at all where the entity was given back meanwhile. From here to the commit nobody gives it back, so that
    /// whoever does so later sees that this saga waits.
    ///
    /// Each look asks anew whether there is a ring: of two that begin to wait at the same time neither may see the other at
    /// first.
    pub(super) async fn held(
        &self,
        tx: &S::Tx,
        saga: SagaId,
        (instance, now_us): (&Instance, i64),
        step: &StepShape,
        entity: String,
    ) -> Result<(Option<Record>, Duration), StoreError> {
        let known = instance.step(&step.name).and_then(|known| known.held.as_ref());
        let since_us =
            known.filter(|known| known.entity == entity).map_or(now_us, |known| known.since_us);
        let Some(holder) =
            self.store.pin_holder(tx, &entity).await?.filter(|holder| *holder != saga)
        else {
            // That an attempt has ended is written down where it was written down before.
            let (step, holder) = (step.name.to_string(), "nobody any more".to_owned());
            let begun = instance.begun(&step) > 0;
            return Ok((
                begun.then_some(Record::Held { step, entity, holder, since_us }),
                Duration::ZERO,
            ));
        };
        let mut others: Vec<Waiting> = Vec::new();
        let (mut seen, mut open) = (HashSet::from([saga]), vec![holder]);
        while !open.is_empty() && seen.len() < LARGEST_RING {
            open.retain(|other| seen.insert(*other));
            let found = self.store.waiting(tx, &open).await?;
            open = found.iter().flat_map(|waiting| &waiting.waits_for).copied().collect();
            others.extend(found);
        }
        let this =
            Waiting { saga, waits_for: vec![holder], may_turn_back: instance.may_turn_back() };
        let gives_way = gives_way(&this, &others);
        if let Some(other) = gives_way.filter(|other| *other != saga) {
            // It may look late.
            self.store.make_due(tx, other).await?;
        }
        let held = Held { entity, holder: holder.to_string(), since_us };
        let wait = next_look(now_us.saturating_sub(since_us));
        Ok((after_held(step, instance, held, gives_way == Some(saga)), wait))
    }
}
