//! Starting sagas, in the caller's transaction.

use super::{handle::SagasError, registry::Registry};
use crate::{
    event::{SagaId, TextRule},
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

/// The rule for a correlation id: with the saga's name it is a key of every database.
pub(super) const CORRELATION: TextRule = TextRule::up_to(200);
/// Ended sagas of which a further start is logged, at most: a caller that starts ever more of them
/// fills no memory.
const MAX_REPORTED: usize = 1_000;

/// The definition as which a saga with some type of data is started.
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

/// The definitions as which sagas of a store are started, by the type of their data: the store
/// keeps them for starts that have only a transaction. Empty unless sagas or a client of this
/// process have registered definitions.
#[derive(Debug, Default)]
pub struct SagaStarts(Mutex<Starts>);

#[derive(Debug, Default)]
struct Starts {
    by_data: Vec<(TypeId, StartedAs)>,
    reported: BTreeSet<SagaId>,
}

impl SagaStarts {
    fn lock(&self) -> MutexGuard<'_, Starts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds registered definitions; the newest version for a type of data counts.
    pub(super) fn add<Tx: Send + Sync + 'static>(&self, registry: &Registry<Tx>) {
        let mut starts = self.lock();
        for (data, shape) in registry.by_data() {
            match starts.by_data.iter_mut().find(|(of, _)| *of == data) {
                Some((_, newest)) if newest.version > shape.version => {}
                Some((_, newest)) => *newest = shape.into(),
                None => starts.by_data.push((data, shape.into())),
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

    /// Logs, once for each saga, that a start found the saga ended.
    fn report_ended(&self, new: &NewSaga, started: &Started) {
        let Started::AlreadyEnded { id, outcome, .. } = started else { return };
        let mut starts = self.lock();
        if starts.reported.len() < MAX_REPORTED && starts.reported.insert(*id) {
            let (name, correlation, outcome) = (&*new.name, &*new.correlation, outcome.as_str());
            tracing::info!(
                saga = %id,
                name,
                correlation,
                outcome,
                "a saga is not started, since the one under its correlation id has ended; `again()` starts another one"
            );
        }
    }
}

/// Starts sagas and drives none, where another process does that. Made by
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
            .field("definitions", &self.registry.definition_ids())
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

    /// Makes a start by the definitions that sagas and clients of this process have registered on
    /// the store, for transactions that know their store.
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
    /// Sets the saga's correlation id, such as `order-7`: 1 to 200 bytes without control
    /// characters. Unless set, it is the saga's identity.
    ///
    /// ```
    /// # use outbox_core::saga::{SagaSource, Sagas, SagasError};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct PlaceOrder { order_id: i64 }
    /// # async fn example<S: SagaSource>(sagas: &Sagas<S>, tx: &S::Tx) -> Result<(), SagasError> {
    /// let first = sagas.start(tx, PlaceOrder { order_id: 7 }).correlation("order-7").await?;
    /// let again = sagas.start(tx, PlaceOrder { order_id: 7 }).correlation("order-7").await?;
    /// assert_eq!(first.id(), again.id());
    /// # Ok(()) }
    /// ```
    pub fn correlation(mut self, id: impl Into<String>) -> Self {
        self.correlation = Some(id.into());
        self
    }

    /// Starts another saga where the one under the correlation id has ended. The ended one is kept,
    /// for as long as it would be otherwise, under its correlation id followed by `#` and the
    /// identity of the new one. While one runs or is stuck, the start fails with
    /// [`SagasError::StillRuns`].
    ///
    /// ```
    /// # use outbox_core::saga::{SagaSource, Sagas, SagasError};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Renew { contract: i64 }
    /// # async fn example<S: SagaSource>(sagas: &Sagas<S>, tx: S::Tx) -> Result<(), SagasError> {
    /// match sagas.start(&tx, Renew { contract: 7 }).correlation("contract-7").again().await {
    ///     Err(SagasError::StillRuns { id }) => println!("{id} has not ended"),
    ///     other => println!("started {}", other?.id()),
    /// }
    /// # Ok(()) }
    /// ```
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
        let (new, again) = (self.build(), self.again);
        let (store, tx) = (self.store, self.tx);
        Box::pin(async move {
            let new = new?;
            if again {
                // First of all, since two such starts at once wait for each other here, and must
                // hold no lock yet.
                store.set_aside(tx, &new, &format!("{}#{}", new.correlation, new.id)).await?;
            }
            match store.start(tx, &new).await? {
                Started::Running { id } if again => Err(SagasError::StillRuns { id }),
                started => {
                    store.starts().report_ended(&new, &started);
                    Ok(started)
                }
            }
        })
    }
}

impl<S: SagaStore, D: Serialize + 'static> Start<'_, S, D> {
    fn build(&self) -> Result<NewSaga, SagasError> {
        let StartedAs { name, version, deadline } =
            self.started_as.clone().ok_or(SagasError::NotRegistered(type_name::<D>()))?;
        let id = SagaId::generate();
        let correlation = self.correlation.clone().unwrap_or_else(|| id.to_string());
        if !CORRELATION.allows(&correlation) {
            return Err(SagasError::Correlation);
        }
        let data = Json::of(&self.data).map_err(SagasError::Data)?;
        if data.is_too_long() {
            return Err(SagasError::TooLong { actual: data.as_str().len(), limit: MAX_VALUE });
        }
        Ok(NewSaga { id, name, version, correlation: correlation.into(), data, deadline })
    }
}
