//! The functions that the code of the macros calls. Not part of the public API.

use crate::{
    Outbox,
    error::OutboxError,
    outbox::InTransaction,
    transaction::{Scope, ScopeResult, within},
};
use futures_util::future::BoxFuture;
use outbox_core::event::jitter;
use std::{
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

pub use crate::{
    OutboxTransaction, Transactional,
    transaction::{Entry, Propagation, TxSource},
};
pub use outbox_core::__private::{
    Arc, Bytes, ContextTx, DecodeError, DecodeEvent, EncodeError, EventContract, EventHandler,
    EventHandlers, EventMeta, EventType, HandlerContext, HandlerError, HandlerOptions, HandlerSet,
    JsonWriter, KeyPart, Message, OutboxEvent, RetryPolicy, Store, Upcast, VariantContent, core,
    empty_json, encode_json, encode_with, serde, serde_json,
};
pub use outbox_core::saga::{Saga, SagaData};
pub use sea_orm::IsolationLevel;

/// The return type of a transactional function: a `Result`.
#[diagnostic::on_unimplemented(
    message = "a transactional function returns a `Result`, not `{Self}`",
    label = "not a `Result`",
    note = "`Ok` commits and `Err` rolls back: return `Result<_, Error>`"
)]
pub trait TxResult {
    /// Its error.
    type Error;
    /// Tells whether it is `Ok`.
    fn is_ok(&self) -> bool;
    /// Makes it from an error.
    fn from_error(error: Self::Error) -> Self;
}

impl<T, E> TxResult for Result<T, E> {
    type Error = E;

    fn is_ok(&self) -> bool {
        Result::is_ok(self)
    }

    fn from_error(error: E) -> Self {
        Err(error)
    }
}

/// An error that can say what went wrong with the transaction itself.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot say what goes wrong with the transaction itself",
    label = "not `From<OutboxError>`",
    note = "add a variant such as `#[error(transparent)] Outbox(#[from] OutboxError)`"
)]
pub trait FromOutboxError {
    /// Converts an outbox error.
    fn from_outbox_error(error: OutboxError) -> Self;
}

impl<E: From<OutboxError>> FromOutboxError for E {
    fn from_outbox_error(error: OutboxError) -> Self {
        error.into()
    }
}

/// What the framework does with a result. Kept as functions, so that the compiler reports a wrong
/// result type once.
struct ResultFns<R> {
    is_ok: fn(&R) -> bool,
    from_error: fn(OutboxError) -> R,
}

impl<R> Clone for ResultFns<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for ResultFns<R> {}

impl<R: TxResult<Error: FromOutboxError>> ResultFns<R> {
    const fn new() -> Self {
        Self {
            is_ok: R::is_ok,
            from_error: |error| R::from_error(R::Error::from_outbox_error(error)),
        }
    }
}

/// One run of a function that returns `R`.
pub struct Run<'a, R> {
    scope: Scope<'a>,
    fns: ResultFns<R>,
}

/// Opens or joins the transaction of a function. It has no bound on the result type, which
/// [`enter`] has checked: so the compiler reports a mistake once, and not once more where this is
/// awaited.
pub struct EnterFuture<'f, 'a, R> {
    future: BoxFuture<'f, Result<Scope<'a>, OutboxError>>,
    fns: ResultFns<R>,
}

impl<'a, R> Future for EnterFuture<'_, 'a, R> {
    type Output = Result<Run<'a, R>, R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let fns = self.fns;
        self.future.as_mut().poll(cx).map(|entered| match entered {
            Ok(scope) => Ok(Run { scope, fns }),
            Err(error) => Err((fns.from_error)(error)),
        })
    }
}

/// Enters the transaction, or gives the result with the error.
pub fn enter<'a, R>(source: TxSource<'a>, entry: Entry) -> EnterFuture<'a, 'a, R>
where
    R: TxResult,
    R::Error: FromOutboxError,
{
    EnterFuture { future: Box::pin(Scope::enter(source, entry)), fns: ResultFns::new() }
}

/// Enters the transaction, with retries while the database is busy, or gives the result with the
/// error.
pub fn enter_with_retry<'f, 'a: 'f, R>(
    source: TxSource<'a>,
    entry: Entry,
    retries: &'f mut RetryBudget,
) -> EnterFuture<'f, 'a, R>
where
    R: TxResult,
    R::Error: FromOutboxError,
{
    let future = async move {
        loop {
            match Scope::enter(source, entry).await {
                Ok(scope) => return Ok(scope),
                Err(error) => {
                    // Inside a transaction no other transaction makes an entry fail.
                    let conflict =
                        !matches!(source, TxSource::Transaction(_)) && error.is_conflict();
                    if !retries.allow_retry(conflict).await {
                        return Err(error);
                    }
                }
            }
        }
    };
    EnterFuture { future: Box::pin(future), fns: ResultFns::new() }
}

impl<R> Run<'_, R> {
    /// The transaction that the function works in.
    pub fn tx(&self) -> &OutboxTransaction {
        self.scope.tx()
    }

    /// Runs the function's body, in which functions without a transaction parameter join this one.
    pub async fn within<F: Future>(&self, body: F) -> F::Output {
        within(self.tx(), body).await
    }

    /// Ends with the function's result.
    pub async fn finish(self, result: R) -> R {
        self.end(result).await.0
    }

    /// Ends with the function's result, or tells the caller to run it again.
    pub async fn finish_or_retry(self, result: R, retries: &mut RetryBudget) -> ControlFlow<R> {
        let (result, conflict) = self.end(result).await;
        if retries.allow_retry(conflict).await {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(result)
        }
    }

    async fn end(self, result: R) -> (R, bool) {
        let Self { scope, fns } = self;
        match scope.finish((fns.is_ok)(&result)).await {
            (ScopeResult::AsReturned, conflict) => (result, conflict),
            (ScopeResult::NotCommitted(error), conflict) => ((fns.from_error)(error), conflict),
        }
    }
}

impl<T, E> Run<'_, Result<T, E>> {
    /// Emits an event made of the returned value.
    pub fn emit<Event: OutboxEvent>(
        &self,
        result: Result<T, E>,
        event: impl FnOnce(&T) -> Event,
    ) -> Result<T, E> {
        let value = result?;
        match self.tx().emit(event(&value)) {
            Ok(_) => Ok(value),
            Err(error) => (self.fns.from_error)(error),
        }
    }
}

/// A function that works in a transaction of SeaORM and emits an event made of its returned value.
pub struct ForeignTx<'a, R> {
    outbox: &'a Outbox,
    fns: ResultFns<R>,
}

impl<'a, R> ForeignTx<'a, R>
where
    R: TxResult,
    R::Error: FromOutboxError,
{
    /// Makes one.
    pub const fn new(outbox: &'a Outbox) -> Self {
        Self { outbox, fns: ResultFns::new() }
    }
}

impl<T, E> ForeignTx<'_, Result<T, E>> {
    /// Saves an event made of the returned value.
    pub async fn emit<C: InTransaction, Event: OutboxEvent>(
        self,
        txn: &C,
        result: Result<T, E>,
        event: impl FnOnce(&T) -> Event,
    ) -> Result<T, E> {
        let value = result?;
        let event = event(&value);
        match self.outbox.enqueue(txn, &event).await {
            Ok(_) => Ok(value),
            Err(error) => (self.fns.from_error)(error),
        }
    }
}

/// The retries of a transaction that are left, with the wait before the next one.
///
/// # Source
/// Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
pub struct RetryBudget {
    left: u32,
    wait: Duration,
}

impl RetryBudget {
    /// First wait: longer than most transactions last, so that the conflicting one has ended.
    const FIRST: Duration = Duration::from_millis(20);
    /// Longest wait: the caller waits too.
    const LONGEST: Duration = Duration::from_secs(1);

    /// Allows so many retries.
    pub const fn new(times: u32) -> Self {
        Self { left: times, wait: Self::FIRST }
    }

    /// Waits and gives `true` while a retry is left.
    async fn allow_retry(&mut self, conflict: bool) -> bool {
        if !conflict || self.left == 0 {
            return false;
        }
        self.left -= 1;
        tokio::time::sleep(jitter(self.wait)).await;
        self.wait = (self.wait * 2).min(Self::LONGEST);
        true
    }
}
