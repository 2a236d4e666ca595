//! Two versions of a saga side by side, as during a rollout.

use super::SagaKit;
use crate::{
    event::{Message, SagaId},
    saga::{Registry, Replies, Saga, SagaAdmin, SagaSource, Worker},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};

/// Adds the definition that an instance has which runs beside.
pub(super) type AddVersion<S> =
    Box<dyn Fn(&mut Registry<<S as crate::outbox::Store>::Tx>) + Send + Sync>;

impl<S, D> SagaKit<S, D>
where
    S: SagaSource + SagaAdmin,
    D: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Lets an instance run beside that has another version of the saga only, as during a rollout: it is offered the saga, and
    /// every answer comes to it first. It must leave both alone, or the test fails.
    ///
    /// ```text
    /// let kit = SagaKit::new(&outbox, checkout_v2).beside(checkout_v1);
    /// kit.disturb_every_answer(order, async |run| books_balance(run).await).await;
    /// ```
    ///
    /// # Panics
    /// When the other definition has faults, or is of the same name and version.
    #[must_use]
    #[track_caller]
    pub fn beside<O>(mut self, other: impl Fn() -> Saga<O, S::Tx> + Send + Sync + 'static) -> Self
    where
        O: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let definition = other();
        assert!(
            definition.faults().is_empty(),
            "the other definition has faults: {:?}",
            definition.faults()
        );
        let shape = definition.shape();
        let (name, version) = (&self.shape.name, self.shape.version);
        assert!(
            shape.name != *name || shape.version != version,
            "`{name}` is of version {version} in both"
        );
        self.beside = Some(Box::new(move |registry| registry.add(other())));
        self
    }

    /// Makes what stands for the instance beside, which is not given the saga.
    pub(super) async fn instance_beside(&self, id: SagaId) -> Option<Arc<Worker<S>>> {
        let add = self.beside.as_ref()?;
        let mut registry = Registry::new();
        add(&mut registry);
        let known = registry.known();
        let claims = self
            .store
            .claim(&known, Duration::ZERO, u32::from(u16::MAX))
            .await
            .expect("sagas are claimed");
        assert!(
            claims.iter().all(|claim| claim.id != id),
            "an instance claims a saga of a version that it does not have"
        );
        Some(self.worker(registry, None))
    }

    /// Lets an answer come to the instance beside, which has to leave it to one that knows the saga.
    pub(super) async fn is_left(&self, beside: &Arc<Worker<S>>, answer: &Message) {
        let tx = self.store.begin().await.expect("a transaction begins");
        let taken = Replies::of(Arc::clone(beside)).take(&tx, answer).await;
        let is_left = taken.as_ref().is_err_and(|error| error.is_unknown());
        assert!(
            is_left,
            "an instance without the saga's version does not leave its answer to another one: {taken:?}"
        );
        self.store.rollback(tx).await.expect("it rolls back");
    }
}
