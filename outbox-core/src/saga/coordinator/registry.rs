//! The definitions that a coordinator knows.

use crate::saga::{
    definition::{Saga, SagaFault, Shape, Steps},
    store::Known,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{any::TypeId, collections::BTreeMap, sync::Arc};

/// Definitions by name and version, and by the type of their data.
pub(crate) struct Registry<Tx> {
    definitions: BTreeMap<Known, Arc<dyn Steps<Tx>>>,
    by_data: Vec<(TypeId, Known)>,
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
        let known: Known = (shape.name.clone(), shape.version);
        self.faults.extend_from_slice(saga.faults());
        if self.definitions.contains_key(&known) {
            self.faults
                .push(SagaFault::DoubledSaga { name: known.0.to_string(), version: known.1 });
        }
        let data = TypeId::of::<D>();
        if let Some((_, other)) =
            self.by_data.iter().find(|(id, other)| *id == data && other.0 != known.0)
        {
            self.faults.push(SagaFault::SameData {
                first: other.0.to_string(),
                second: known.0.to_string(),
            });
        }
        self.by_data.push((data, known.clone()));
        self.definitions.insert(known, Arc::new(saga));
    }

    pub(super) fn faults(&self) -> &[SagaFault] {
        &self.faults
    }

    /// Lists names and versions.
    pub(crate) fn known(&self) -> Vec<Known> {
        self.definitions.keys().cloned().collect()
    }

    /// Gives those in which others are asked to do a step.
    pub(super) fn that_ask(&self) -> impl Iterator<Item = &Shape> {
        self.definitions.values().map(|steps| steps.shape()).filter(|shape| shape.asks())
    }

    pub(super) fn get(&self, known: &Known) -> Option<&Arc<dyn Steps<Tx>>> {
        self.definitions.get(known)
    }

    /// Gives the definitions by the type of their data.
    pub(super) fn by_data(&self) -> impl Iterator<Item = (TypeId, &Shape)> {
        self.by_data.iter().filter_map(|(data, known)| Some((*data, self.get(known)?.shape())))
    }

    /// Finds what a saga with these data is started as: the newest version.
    pub(crate) fn newest<D: 'static>(&self) -> Option<&Shape> {
        let data = TypeId::of::<D>();
        let of_data = self.by_data.iter().filter(|(id, _)| *id == data).map(|(_, known)| known);
        of_data
            .max_by_key(|known| known.1)
            .and_then(|known| self.get(known))
            .map(|steps| steps.shape())
    }
}
