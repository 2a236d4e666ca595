//! Two versions of a saga side by side, as during a rollout.

use super::SagaKit;
use crate::{
    event::{Message, SagaId},
    saga::{Registry, Replies, ReplyFailure, Saga, SagaAdmin, SagaSource, Worker},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};

/// Registers the definition of the instance with the other version.
pub(super) type AddVersion<S> =
    Box<dyn Fn(&mut Registry<<S as crate::outbox::Store>::Tx>) + Send + Sync>;

impl<S, D> SagaKit<S, D>
where
    S: SagaSource + SagaAdmin,
    D: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Lets an instance run beside that has another version of the saga only, as during a rollout:
    /// the kit offers it the saga and every reply first. It must leave both to the other instance,
    /// or the test fails.
    ///
    /// ```text
    /// let kit = SagaKit::new(&outbox, checkout_v2).beside_version(checkout_v1);
    /// kit.inject_every_fault(order, async |run| books_balance(run).await).await;
    /// ```
    ///
    /// # Panics
    /// When the other definition has faults, or is of the same name and version.
    #[must_use]
    #[track_caller]
    pub fn beside_version<O>(
        mut self,
        other: impl Fn() -> Saga<O, S::Tx> + Send + Sync + 'static,
    ) -> Self
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
        self.other_version = Some(Box::new(move |registry| registry.add(other())));
        self
    }

    /// Makes the worker of the instance with the other version, which must not claim the saga.
    pub(super) async fn other_instance(&self, id: SagaId) -> Option<Arc<Worker<S>>> {
        let add = self.other_version.as_ref()?;
        let mut registry = Registry::new();
        add(&mut registry);
        let definitions = registry.definition_ids();
        let claims = self
            .store
            .claim(&definitions, Duration::ZERO, u32::from(u16::MAX))
            .await
            .expect("sagas are claimed");
        assert!(
            claims.iter().all(|claim| claim.id != id),
            "an instance claims a saga of a version that it does not have"
        );
        Some(self.worker(registry, None))
    }

    /// Offers a reply to the instance with the other version, which has to leave it to one that has
    /// the saga's version.
    pub(super) async fn expect_left(&self, other: &Arc<Worker<S>>, reply: &Message) {
        let tx = self.store.begin().await.expect("a transaction begins");
        let taken = Replies::of(Arc::clone(other)).take(&tx, reply).await;
        let is_left =
            taken.as_ref().is_err_and(|failure| matches!(failure, ReplyFailure::Awaits(_)));
        assert!(
            is_left,
            "an instance without the saga's version does not leave its reply to another one: {taken:?}"
        );
        self.store.rollback(tx).await.expect("it rolls back");
    }
}
