//! The definitions that are registered with a coordinator.

use crate::saga::{
    definition::{Saga, SagaFault, Shape, Steps},
    store::DefinitionId,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{any::TypeId, collections::BTreeMap, sync::Arc};

/// Definitions by name and version, and by the type of their data.
pub(crate) struct Registry<Tx> {
    definitions: BTreeMap<DefinitionId, Arc<dyn Steps<Tx>>>,
    by_data: Vec<(TypeId, DefinitionId)>,
    faults: Vec<SagaFault>,
}

impl<Tx: Send + Sync + 'static> Registry<Tx> {
    pub(crate) const fn new() -> Self {
        Self { definitions: BTreeMap::new(), by_data: Vec::new(), faults: Vec::new() }
    }

    pub(crate) fn add<D>(&mut self, saga: Saga<D, Tx>)
    where
        D: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let shape = saga.shape();
        let id: DefinitionId = (shape.name.clone(), shape.version);
        self.faults.extend_from_slice(saga.faults());
        if self.definitions.contains_key(&id) {
            self.faults.push(SagaFault::DuplicateSaga { name: id.0.to_string(), version: id.1 });
        }
        let data = TypeId::of::<D>();
        if let Some((_, other)) =
            self.by_data.iter().find(|(of, other)| *of == data && other.0 != id.0)
        {
            self.faults
                .push(SagaFault::SameData { first: other.0.to_string(), second: id.0.to_string() });
        }
        self.by_data.push((data, id.clone()));
        self.definitions.insert(id, Arc::new(saga));
    }

    pub(super) fn faults(&self) -> &[SagaFault] {
        &self.faults
    }

    /// Lists the names and versions.
    pub(crate) fn definition_ids(&self) -> Vec<DefinitionId> {
        self.definitions.keys().cloned().collect()
    }

    /// Gives the definitions with remote steps.
    pub(super) fn with_remote_steps(&self) -> impl Iterator<Item = &Shape> {
        self.definitions
            .values()
            .map(|steps| steps.shape())
            .filter(|shape| shape.has_remote_steps())
    }

    pub(super) fn get(&self, id: &DefinitionId) -> Option<&Arc<dyn Steps<Tx>>> {
        self.definitions.get(id)
    }

    /// Gives the definitions by the type of their data.
    pub(super) fn by_data(&self) -> impl Iterator<Item = (TypeId, &Shape)> {
        self.by_data.iter().filter_map(|(data, id)| Some((*data, self.get(id)?.shape())))
    }

    /// Finds the definition as which a saga with these data is started: the newest version.
    pub(crate) fn newest<D: 'static>(&self) -> Option<&Shape> {
        let data = TypeId::of::<D>();
        let of_data = self.by_data.iter().filter(|(of, _)| *of == data).map(|(_, id)| id);
        of_data.max_by_key(|id| id.1).and_then(|id| self.get(id)).map(|steps| steps.shape())
    }
}
