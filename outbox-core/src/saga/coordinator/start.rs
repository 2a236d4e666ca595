//! Starting sagas, in the caller's transaction.

use super::{handle::SagasError, registry::Registry};
use crate::{
    event::SagaId,
    saga::{
        definition::Shape,
        json::{Json, MAX_VALUE},
        store::{NewSaga, SagaSource, SagaStore, Started},
    },
};
use futures_util::future::BoxFuture;
use serde::Serialize;
use std::{
    any::{TypeId, type_name},
    collections::BTreeSet,
    future::IntoFuture,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Longest correlation id in bytes: with the saga's name it is a key of every database.
const MAX_CORRELATION: usize = 200;
/// Ended sagas that are told of, when they are started again: whoever goes on fills no memory.
const MOST_TOLD: usize = 1_000;

/// What a saga with some type of data is started as.
#[derive(Debug, Clone)]
struct StartedAs {
    name: Arc<str>,
    version: u32,
    deadline: Option<Duration>,
}

impl From<&Shape> for StartedAs {
    fn from(shape: &Shape) -> Self {
        Self { name: Arc::clone(&shape.name), version: shape.version, deadline: shape.deadline }
    }
}

/// What the sagas of a store are started as: kept by the store, for starts that have nothing but a transaction. Empty unless
/// sagas or a client of this process have registered definitions.
#[derive(Debug, Default)]
pub struct SagaStarts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_data: Vec<(TypeId, StartedAs)>,
    told: BTreeSet<SagaId>,
}

impl SagaStarts {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what is registered; of one type of data the newest version counts.
    pub(super) fn add<Tx: Send + Sync + 'static>(&self, registry: &Registry<Tx>) {
        let mut known = self.lock();
        for (data, shape) in registry.by_data() {
            match known.by_data.iter_mut().find(|(of, _)| *of == data) {
                Some((_, as_before)) if as_before.version > shape.version => {}
                Some((_, as_before)) => *as_before = shape.into(),
                None => known.by_data.push((data, shape.into())),
            }
        }
    }

    fn newest<D: 'static>(&self) -> Option<StartedAs> {
        self.lock()
            .by_data
            .iter()
            .find(|(data, _)| *data == TypeId::of::<D>())
            .map(|(_, started_as)| started_as.clone())
    }

    /// Logs, once a saga, that it has ended where somebody wants to start it.
    fn tell_of_an_end(&self, new: &NewSaga, started: &Started) {
        let Started::AlreadyEnded { id, outcome, .. } = started else { return };
        let mut known = self.lock();
        if known.told.len() < MOST_TOLD && known.told.insert(*id) {
            let (name, correlation, outcome) = (&*new.name, &*new.correlation, outcome.as_str());
            tracing::info!(
                saga = %id,
                name,
                correlation,
                outcome,
                "a saga is not started, since the one under its correlation id has ended; `again()` begins anew"
            );
        }
    }
}

/// Starts sagas and carries none: for services in which another process does that. Made by
/// [`SagasBuilder::client`](crate::saga::SagasBuilder::client). Cloning is cheap.
pub struct SagaClient<S: SagaSource> {
    store: S,
    registry: Arc<Registry<S::Tx>>,
}

impl<S: SagaSource> Clone for SagaClient<S> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), registry: Arc::clone(&self.registry) }
    }
}

impl<S: SagaSource> std::fmt::Debug for SagaClient<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SagaClient")
            .field("definitions", &self.registry.known())
            .finish_non_exhaustive()
    }
}

impl<S: SagaSource> SagaClient<S> {
    pub(super) fn new(store: S, registry: Registry<S::Tx>) -> Self {
        Self { store, registry: Arc::new(registry) }
    }

    /// Starts a saga in the caller's transaction. See [`Sagas::start`](crate::saga::Sagas::start).
    pub fn start<'a, D: 'static>(&'a self, tx: &'a S::Tx, data: D) -> Start<'a, S, D> {
        Start::of(&self.store, tx, self.registry.newest::<D>(), data)
    }
}

/// A start that is awaited. See [`Sagas::start`](crate::saga::Sagas::start).
#[must_use = "a saga starts when this is awaited"]
pub struct Start<'a, S: SagaStore, D> {
    store: &'a S,
    tx: &'a S::Tx,
    started_as: Option<StartedAs>,
    data: D,
    correlation: Option<String>,
    again: bool,
}

impl<'a, S: SagaStore, D: 'static> Start<'a, S, D> {
    pub(super) fn of(store: &'a S, tx: &'a S::Tx, shape: Option<&Shape>, data: D) -> Self {
        Self { store, tx, started_as: shape.map(Into::into), data, correlation: None, again: false }
    }

    /// Makes one by what sagas and clients of this process have registered on the store, for transactions that know their
    /// store.
    pub fn by_store(store: &'a S, tx: &'a S::Tx, data: D) -> Self {
        Self {
            store,
            tx,
            started_as: store.starts().newest::<D>(),
            data,
            correlation: None,
            again: false,
        }
    }
}

impl<S: SagaStore, D> Start<'_, S, D> {
    /// Names what the saga is known by, such as `order-7`: 1 to 200 bytes without control characters. Without it, it is known
    /// by its identity alone.
    pub fn correlation(mut self, id: impl Into<String>) -> Self {
        self.correlation = Some(id.into());
        self
    }

    /// Begins anew where the saga under the correlation id has ended. That one is kept, for as long as it would be
    /// otherwise, under its correlation id with `#` and the identity of the one that begins behind it. While one runs or is stuck, the start fails
    /// with [`SagasError::StillRuns`].
    pub fn again(mut self) -> Self {
        self.again = true;
        self
    }
}

impl<'a, S, D> IntoFuture for Start<'a, S, D>
where
    S: SagaStore,
    D: Serialize + Send + 'static,
{
    type Output = Result<Started, SagasError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let (made, again) = (self.made(), self.again);
        let (store, tx) = (self.store, self.tx);
        Box::pin(async move {
            let new = made?;
            if again {
                // First of all: two that do so at once wait for each other here, and hold nothing yet.
                store.set_aside(tx, &new, &format!("{}#{}", new.correlation, new.id)).await?;
            }
            match store.start(tx, &new).await? {
                Started::Running { id } if again => Err(SagasError::StillRuns { id }),
                started => {
                    store.starts().tell_of_an_end(&new, &started);
                    Ok(started)
                }
            }
        })
    }
}

impl<S: SagaStore, D: Serialize + 'static> Start<'_, S, D> {
    fn made(&self) -> Result<NewSaga, SagasError> {
        let StartedAs { name, version, deadline } =
            self.started_as.clone().ok_or(SagasError::NotRegistered(type_name::<D>()))?;
        let id = SagaId::generate();
        let correlation = self.correlation.clone().unwrap_or_else(|| id.to_string());
        if correlation.is_empty()
            || correlation.len() > MAX_CORRELATION
            || correlation.chars().any(char::is_control)
        {
            return Err(SagasError::Correlation);
        }
        let data = Json::of(&self.data).map_err(SagasError::Data)?;
        if data.is_too_long() {
            return Err(SagasError::TooLong { actual: data.as_str().len(), limit: MAX_VALUE });
        }
        Ok(NewSaga { id, name, version, correlation: correlation.into(), data, deadline })
    }
}
