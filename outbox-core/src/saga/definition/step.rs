//! What users write: steps, compensations, their context and their errors.

use crate::{
    event::SagaId,
    failure::BoxError,
    outbox::StoreError,
    saga::lock::{AcquiredLocks, LockOutcome, validate_entity},
};
use std::{fmt, future::Future, sync::Arc};

/// The context of a step: the transaction of the step, in which its record is written too, and
/// facts about the attempt.
///
/// What is written through [`tx`](Self::tx) commits together with the saga's progress, or not at
/// all.
///
/// ```
/// # use outbox_core::saga::{StepContext, StepError};
/// # struct Sql;
/// # struct PlaceOrder { order_id: i64 }
/// # impl PlaceOrder {
/// async fn reserve(&mut self, cx: &StepContext<Sql>) -> Result<(), StepError> {
///     println!("step {} of saga {}, attempt {}", cx.step(), cx.saga(), cx.attempt());
///     // .. write through `cx.tx` ..
/// #   let _ = &cx.tx;
///     Ok(())
/// }
/// # }
/// ```
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
    locks: AcquiredLocks<Tx>,
}

impl<Tx> StepContext<Tx> {
    pub(in crate::saga) fn new(
        tx: Tx,
        saga: SagaId,
        (correlation, step): (Arc<str>, Arc<str>),
        attempt: u32,
        undoes: bool,
        reason: Option<String>,
        locks: AcquiredLocks<Tx>,
    ) -> Self {
        Self { tx, saga, correlation, step, attempt, undoes, reason, locks }
    }

    /// Gives the transaction back, with the entities that were locked in it.
    pub(in crate::saga) fn into_parts(self) -> (Tx, Vec<String>) {
        (self.tx, self.locks.take())
    }

    /// Gives the saga's identity.
    #[must_use]
    pub const fn saga(&self) -> SagaId {
        self.saga
    }

    /// Gives the saga's correlation id.
    #[must_use]
    pub fn correlation(&self) -> &str {
        &self.correlation
    }

    /// Gives the step's stable name; in a compensation, that of the step that it undoes.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.step
    }

    /// Gives the number of this attempt, from 1. Attempts whose process crashed are not counted
    /// here; after a few in a row the saga is stuck.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Gives why the saga compensates, in a compensation and in the hook `on_compensated`, or why
    /// it is stuck, in the hook `on_stuck`; `None` while it goes forward. It is a text for people:
    ///
    /// | what made the saga compensate | the text |
    /// | --- | --- |
    /// | a step | the step in backticks, a colon, and the step's error: "`charge`: the customer cannot pay" |
    /// | a participant | "`charge`: rejected: payment.declined: over the limit", with the type of the rejecting event and, where that has a field `reason`, its text |
    /// | a reply that did not come | "`charge`: no reply in time" |
    /// | the deadline | "its deadline has passed" |
    /// | an operator | "cancelled: " and the operator's reason |
    ///
    /// Of a stuck saga it is the last error of its step.
    ///
    /// ```
    /// # use outbox_core::saga::{StepContext, StepError};
    /// # struct Sql;
    /// # struct PlaceOrder { order_id: i64 }
    /// # impl PlaceOrder {
    /// async fn cancelled(&self, cx: &StepContext<Sql>) -> Result<(), StepError> {
    ///     println!("order {} is cancelled: {}", self.order_id, cx.reason().unwrap_or("unknown"));
    ///     Ok(())
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Gives a key that is the same at every attempt of this step, and another one for its
    /// compensation: for calls to services that recognise repeats.
    ///
    /// The effect of such a call is no part of the step: only what is written in the step's
    /// transaction is. A step that fails, runs out of attempts or crashes with its process counts
    /// as not done, and is not undone, though the service may have done its part. Make the call in
    /// a step that the coordinator repeats until the service answers (past the pivot, or without a
    /// limit of attempts), or make it a remote step.
    ///
    /// ```
    /// # use outbox_core::saga::{StepContext, StepError};
    /// # struct Sql;
    /// # struct Carrier;
    /// # impl Carrier { async fn order(&self, _: &str, _: i64) -> Result<(), std::io::Error> { Ok(()) } }
    /// # struct PlaceOrder { order_id: i64 }
    /// # impl PlaceOrder {
    /// async fn ship(&mut self, cx: &StepContext<Sql>) -> Result<(), StepError> {
    /// #   let carrier = Carrier;
    ///     carrier.order(&cx.idempotency_key(), self.order_id).await?; // the same key at each attempt
    ///     Ok(())
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}{}", self.saga, self.step, if self.undoes { "/undo" } else { "" })
    }

    /// Locks an entity for this saga, such as `account/7`: a semantic lock. Other sagas that lock
    /// the entity wait until this one has ended, completed or compensated; only those that do not
    /// lock see what it commits in between.
    ///
    /// Where another saga holds the lock, leave the step with the error, by `?`: nothing of the
    /// step is done, and the coordinator attempts it again when that saga has ended. Waits are no
    /// failures: they count against no retry policy, and end with the saga's deadline. Of sagas in
    /// a deadlock, the youngest that may compensate does. Lock in the step that first reads what a
    /// later one relies on, before it reads anything, so that it sees what the last holder has
    /// written; lock several entities in the same order everywhere.
    ///
    /// An entity is a name of 1 to 255 bytes without control characters, the same for all sagas of
    /// one outbox.
    ///
    /// ```
    /// # use outbox_core::saga::{StepContext, StepError};
    /// # struct Sql;
    /// # struct Transfer { from: i64, to: i64 }
    /// # impl Transfer {
    /// async fn reserve(&mut self, cx: &StepContext<Sql>) -> Result<(), StepError> {
    ///     let (first, second) = (self.from.min(self.to), self.from.max(self.to));
    ///     cx.lock(format!("account/{first}")).await?; // the same order everywhere
    ///     cx.lock(format!("account/{second}")).await?;
    ///     // .. only now read the balances through `cx.tx` ..
    ///     Ok(())
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// One that makes the saga wait, where another saga holds the lock; an abort, where the name is
    /// invalid; else the database's error: the coordinator attempts the step again, and a busy or
    /// unavailable database is no failure of the step.
    pub async fn lock(&self, entity: impl AsRef<str> + Send) -> Result<(), StepError>
    where
        Tx: Sync,
    {
        let entity = entity.as_ref();
        match self.lock_entity(entity).await? {
            LockOutcome::Acquired | LockOutcome::AlreadyOwned => Ok(()),
            LockOutcome::OwnedBy(holder) => {
                Err(StepError(Failure::Blocked { entity: entity.to_owned(), holder }))
            }
        }
    }

    /// Locks an entity for this saga as [`lock`](Self::lock) does; gives `false`, without a wait,
    /// where another saga holds the lock: for steps that then abort or do something else.
    ///
    /// ```
    /// # use outbox_core::saga::{StepContext, StepError};
    /// # struct Sql;
    /// # struct Book { room: i64 }
    /// # impl Book {
    /// async fn choose_room(&mut self, cx: &StepContext<Sql>) -> Result<(), StepError> {
    ///     if !cx.try_lock(format!("room/{}", self.room)).await? {
    ///         return Err(StepError::abort("the room is being booked")); // does not wait
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// As those of [`lock`](Self::lock), but for the first.
    pub async fn try_lock(&self, entity: impl AsRef<str> + Send) -> Result<bool, StepError>
    where
        Tx: Sync,
    {
        Ok(!matches!(self.lock_entity(entity.as_ref()).await?, LockOutcome::OwnedBy(_)))
    }

    async fn lock_entity(&self, entity: &str) -> Result<LockOutcome, StepError> {
        match validate_entity(entity) {
            Some(fault) => Err(StepError::abort(fault)),
            None => self
                .locks
                .lock(&self.tx, self.saga, entity)
                .await
                .map_err(|e| StepError(Failure::Store(e))),
        }
    }
}

/// The error of a step, with what the coordinator does about it.
///
/// Every error converts into one that the coordinator retries, so that `?` works; `StepError`
/// itself is no [`std::error::Error`] for that reason.
///
/// ```
/// # use outbox_core::saga::{StepContext, StepError};
/// # struct Sql;
/// # struct PlaceOrder { total: i64 }
/// # async fn capture(_: i64) -> Result<i64, std::io::Error> { Ok(7) }
/// # impl PlaceOrder {
/// async fn charge(&mut self, cx: &StepContext<Sql>) -> Result<i64, StepError> {
///     if self.total > 100_000 {
///         return Err(StepError::abort("over the limit")); // the saga compensates
///     }
/// #   let _ = cx;
///     Ok(capture(self.total).await?) // an error is tried again
/// }
/// # }
/// ```
pub struct StepError(pub(in crate::saga) Failure);

/// What the coordinator does about a failed step.
pub(in crate::saga) enum Failure {
    Retry(BoxError),
    Abort(String),
    /// Another saga has locked an entity that the step needs.
    Blocked {
        entity: String,
        holder: SagaId,
    },
    /// The store has failed, which is no failure of the step.
    Store(StoreError),
    /// The code cannot read what is stored.
    Stop(String),
}

impl StepError {
    /// A later attempt may succeed: the coordinator retries the step by its retry policy.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self(Failure::Retry(error.into()))
    }

    /// No attempt can succeed: the saga compensates. Past the pivot, and in a compensation, it is
    /// stuck until an operator decides.
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
            Failure::Blocked { entity, holder } => {
                f.debug_tuple("Blocked").field(entity).field(holder).finish()
            }
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
            Failure::Blocked { entity, holder } => {
                write!(f, "`{entity}` is locked by the saga {holder}")
            }
            Failure::Stop(reason) => f.write_str(reason),
        }
    }
}

impl<E: Into<BoxError>> From<E> for StepError {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

/// A function that is a step: `async fn(&mut self, &StepContext) -> Result<Output, Error>`. Every
/// such function implements it.
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

/// A function that is a step of a parallel group: it takes `&self`, since other steps run at the
/// same time.
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

/// A function that takes a value beside the data: a compensation, which takes its step's output, or
/// a merge step, which takes the outputs of its group's steps.
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
