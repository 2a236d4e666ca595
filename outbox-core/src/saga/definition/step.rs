//! What users write: steps, compensations, their context, and what they may answer.

use crate::{
    event::SagaId,
    outbox::StoreError,
    saga::lock::{Marked, Marker, fault_of},
};
use std::{fmt, future::Future, sync::Arc};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a step works in: the transaction in which its record is written too.
///
/// What is written through [`tx`](Self::tx) commits together with the saga's progress, or not at all.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepContext<Tx> {
    /// The transaction, which the coordinator commits after the step has returned `Ok`.
    pub tx: Tx,
    saga: SagaId,
    correlation: Arc<str>,
    step: Arc<str>,
    attempt: u32,
    undoes: bool,
    reason: Option<String>,
    marker: Marker<Tx>,
}

impl<Tx> StepContext<Tx> {
    pub(in crate::saga) fn new(
        tx: Tx,
        saga: SagaId,
        (correlation, step): (Arc<str>, Arc<str>),
        attempt: u32,
        undoes: bool,
        reason: Option<String>,
        marker: Marker<Tx>,
    ) -> Self {
        Self { tx, saga, correlation, step, attempt, undoes, reason, marker }
    }

    /// Gives the transaction back, with the entities that were marked in it.
    pub(in crate::saga) fn into_parts(self) -> (Tx, Vec<String>) {
        (self.tx, self.marker.take())
    }

    /// Gives the saga's identity.
    #[must_use]
    pub const fn saga(&self) -> SagaId {
        self.saga
    }

    /// Gives what the saga was started under.
    #[must_use]
    pub fn correlation(&self) -> &str {
        &self.correlation
    }

    /// Gives the step's stable name; in a compensation, that of the step that it undoes.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.step
    }

    /// Tells which attempt this is, from 1. Attempts that died with their process are not counted here; after a few in a
    /// row the saga is stuck.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Says why the saga has turned back, in a compensation and in the hook `on_compensated`, or why it is stuck, in the hook
    /// `on_stuck`; `None` while it goes forward. It is a text for people:
    ///
    /// | what turned the saga back | the text |
    /// | --- | --- |
    /// | a step | the step in backticks, a colon, and what it said: "`charge`: the customer cannot pay" |
    /// | another service | "`charge`: refused: payment.declined: over the limit", with the type of the event that refuses and, where that has a field `reason`, its text |
    /// | its answer, which did not come | "`charge`: no answer in time" |
    /// | the deadline | "its deadline has passed" |
    /// | an operator | "cancelled: " and the reason that was given |
    ///
    /// Of a stuck saga it is what its step said last.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Gives a key that is the same at every attempt of this step, and another one for its compensation: for calls of
    /// services that recognise repeats.
    ///
    /// What such a service did is no part of the step: only what is written in the step's transaction is. A step that
    /// fails, runs out of attempts or dies with its process counts as not done, and is not undone, though the service may
    /// have done its part. Call it from a step that can be repeated until it answers (behind the pivot, or without a limit
    /// of attempts), or let an event carry the wish.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}{}", self.saga, self.step, if self.undoes { "/undo" } else { "" })
    }

    /// Marks an entity for this saga, such as `account/7`: a semantic lock. Others that lock it too wait until this saga has
    /// ended, completed or compensated; what was committed in between is seen only by those that do not ask.
    ///
    /// Where another saga has it, leave the step with the error, by `?`: nothing of the step is done, and it is tried again
    /// when that saga has ended. Waits are no failures: they count against no retry policy, and end with the saga's
    /// deadline. Sagas that wait for each other are found, and the youngest that may turn back does. Lock in the step that
    /// reads first what a later one relies on, before it reads anything, so that it sees what the last holder has left;
    /// several entities in the same order everywhere.
    ///
    /// An entity is a name of 1 to 255 bytes without control characters, the same for all sagas of one outbox.
    ///
    /// # Errors
    /// One that makes the saga wait, where another one has the entity; an abort, where the name cannot be; else one with
    /// what the database said: the step is tried again, and where the database was busy or away that is no failure of it.
    pub async fn lock(&self, entity: impl AsRef<str> + Send) -> Result<(), StepError>
    where
        Tx: Sync,
    {
        let entity = entity.as_ref();
        match self.mark(entity).await? {
            Marked::New | Marked::Before => Ok(()),
            Marked::ByOther(holder) => Err(StepError(Failure::Held { entity: entity.to_owned(), holder })),
        }
    }

    /// Marks an entity for this saga as [`lock`](Self::lock) does, or says that another saga has it, without waiting: for
    /// steps that refuse.
    ///
    /// # Errors
    /// As those of [`lock`](Self::lock), but for the first.
    pub async fn try_lock(&self, entity: impl AsRef<str> + Send) -> Result<bool, StepError>
    where
        Tx: Sync,
    {
        Ok(!matches!(self.mark(entity.as_ref()).await?, Marked::ByOther(_)))
    }

    async fn mark(&self, entity: &str) -> Result<Marked, StepError> {
        match fault_of(entity) {
            Some(fault) => Err(StepError::abort(fault)),
            None => self.marker.mark(&self.tx, self.saga, entity).await.map_err(|e| StepError(Failure::Store(e))),
        }
    }
}

/// Why a step did not do its work, and what should follow.
///
/// Every error converts into one that is tried again, so that `?` works; `StepError` itself is no [`std::error::Error`]
/// for that reason.
pub struct StepError(pub(in crate::saga) Failure);

/// What a step asks for.
pub(in crate::saga) enum Failure {
    Retry(BoxError),
    Abort(String),
    /// Another saga has marked an entity that it needs.
    Held {
        entity: String,
        holder: SagaId,
    },
    /// The store failed, and not the step.
    Store(StoreError),
    /// What is stored does not fit the code.
    Stop(String),
}

impl StepError {
    /// The work may succeed later: run the step again, as its retry policy says.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self(Failure::Retry(error.into()))
    }

    /// The work can never succeed: undo what was done before. Past the pivot, and in a compensation, the saga is stuck
    /// until an operator decides.
    pub fn abort(reason: impl Into<String>) -> Self {
        Self(Failure::Abort(reason.into()))
    }
}

impl fmt::Debug for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Failure::Retry(error) => f.debug_tuple("Retry").field(error).finish(),
            Failure::Abort(reason) => f.debug_tuple("Abort").field(reason).finish(),
            Failure::Store(error) => f.debug_tuple("Store").field(error).finish(),
            Failure::Held { entity, holder } => f.debug_tuple("Held").field(entity).field(holder).finish(),
            Failure::Stop(reason) => f.debug_tuple("Stop").field(reason).finish(),
        }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Failure::Retry(error) => error.fmt(f),
            Failure::Abort(reason) => write!(f, "aborted: {reason}"),
            Failure::Store(error) => error.fmt(f),
            Failure::Held { entity, holder } => write!(f, "`{entity}` is held by the saga {holder}"),
            Failure::Stop(reason) => f.write_str(reason),
        }
    }
}

impl<E: Into<BoxError>> From<E> for StepError {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

/// A function that is a step: `async fn(&mut self, &StepContext) -> Result<Output, Error>`. Implemented for all that fit.
// Names the future, which may borrow both arguments: `AsyncFn` bounds cannot say that it is `Send`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no step of `{D}`",
    label = "not a step",
    note = "write `async fn(&mut self, cx: &StepContext) -> Result<Output, Error>` whose future is `Send`"
)]
pub trait StepFn<'a, D: 'a, O, Cx: 'a>: Send + Sync + 'static {
    /// The function's future.
    type Future: Future<Output = Result<O, StepError>> + Send + 'a;

    /// Calls the function.
    fn call(&self, data: &'a mut D, cx: &'a Cx) -> Self::Future;
}

impl<'a, D, O, Cx, F, Fut, E> StepFn<'a, D, O, Cx> for F
where
    D: 'a,
    Cx: 'a,
    F: Fn(&'a mut D, &'a Cx) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, E>> + Send + 'a,
    E: Into<StepError>,
{
    type Future = IntoStepError<Fut>;

    fn call(&self, data: &'a mut D, cx: &'a Cx) -> Self::Future {
        IntoStepError(Box::pin(self(data, cx)))
    }
}

/// A function that is a step of a parallel group: it takes `&self`, for others run beside it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no step of a parallel group of `{D}`",
    label = "not a parallel step",
    note = "write `async fn(&self, cx: &StepContext) -> Result<Output, Error>` whose future is `Send`"
)]
pub trait BranchFn<'a, D: 'a, O, Cx: 'a>: Send + Sync + 'static {
    /// The function's future.
    type Future: Future<Output = Result<O, StepError>> + Send + 'a;

    /// Calls the function.
    fn call(&self, data: &'a D, cx: &'a Cx) -> Self::Future;
}

impl<'a, D, O, Cx, F, Fut, E> BranchFn<'a, D, O, Cx> for F
where
    D: 'a,
    Cx: 'a,
    F: Fn(&'a D, &'a Cx) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, E>> + Send + 'a,
    E: Into<StepError>,
{
    type Future = IntoStepError<Fut>;

    fn call(&self, data: &'a D, cx: &'a Cx) -> Self::Future {
        IntoStepError(Box::pin(self(data, cx)))
    }
}

/// A function that takes a value beside the data: a compensation, which is given what its step returned, or a merge step,
/// which is given what the steps of its group returned.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not take what the step returned, `{V}`",
    label = "takes another type",
    note = "a compensation is `async fn(&mut self, output: {V}, cx: &StepContext) -> Result<(), Error>`"
)]
pub trait TakesFn<'a, D: 'a, V, O, Cx: 'a>: Send + Sync + 'static {
    /// The function's future.
    type Future: Future<Output = Result<O, StepError>> + Send + 'a;

    /// Calls the function.
    fn call(&self, data: &'a mut D, value: V, cx: &'a Cx) -> Self::Future;
}

impl<'a, D, V, O, Cx, F, Fut, E> TakesFn<'a, D, V, O, Cx> for F
where
    D: 'a,
    Cx: 'a,
    F: Fn(&'a mut D, V, &'a Cx) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, E>> + Send + 'a,
    E: Into<StepError>,
{
    type Future = IntoStepError<Fut>;

    fn call(&self, data: &'a mut D, value: V, cx: &'a Cx) -> Self::Future {
        IntoStepError(Box::pin(self(data, value, cx)))
    }
}

/// The future of a step, with its error turned into a [`StepError`].
pub struct IntoStepError<F>(std::pin::Pin<Box<F>>);

impl<F, O, E> Future for IntoStepError<F>
where
    F: Future<Output = Result<O, E>>,
    E: Into<StepError>,
{
    type Output = Result<O, StepError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<O, StepError>> {
        self.0.as_mut().poll(cx).map_err(Into::into)
    }
}
