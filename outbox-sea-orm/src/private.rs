//! What the code emitted by the macros calls. Not part of the public promise.

use crate::{
    Outbox,
    error::OutboxError,
    outbox::InTransaction,
    transaction::{Ended, Scope, within},
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
    transaction::{Entry, Origin, Propagation},
};
pub use outbox_core::__private::*;
pub use outbox_core::saga::{Saga, SagaData};
pub use sea_orm::IsolationLevel;

/// What a transactional function returns: a `Result`.
#[diagnostic::on_unimplemented(
    message = "a transactional function returns a `Result`, not `{Self}`",
    label = "not a `Result`",
    note = "`Ok` commits and `Err` rolls back: return `Result<_, Error>`"
)]
pub trait Answer {
    /// Its error.
    type Error;
    /// Tells whether it is `Ok`.
    fn is_well(&self) -> bool;
    /// Makes it of an error.
    fn failed(error: Self::Error) -> Self;
}

impl<T, E> Answer for Result<T, E> {
    type Error = E;

    fn is_well(&self) -> bool {
        self.is_ok()
    }

    fn failed(error: E) -> Self {
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
    /// Makes it of an outbox error.
    fn from_outbox_error(error: OutboxError) -> Self;
}

impl<E: From<OutboxError>> FromOutboxError for E {
    fn from_outbox_error(error: OutboxError) -> Self {
        error.into()
    }
}

/// The two things that must be done with an answer. Kept as functions, so that an answer which cannot do them is told once.
struct Means<R> {
    is_well: fn(&R) -> bool,
    failed: fn(OutboxError) -> R,
}

impl<R> Clone for Means<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Means<R> {}

impl<R: Answer<Error: FromOutboxError>> Means<R> {
    const fn new() -> Self {
        Self { is_well: R::is_well, failed: |error| R::failed(R::Error::from_outbox_error(error)) }
    }
}

/// One run of a function that answers `R`.
pub struct Run<'a, R> {
    scope: Scope<'a>,
    means: Means<R>,
}

/// A function on its way into its transaction. It asks nothing of the answer, which [`enter`] has checked: so a mistake is
/// told once, and not once more where this is awaited.
pub struct Entering<'f, 'a, R> {
    entering: BoxFuture<'f, Result<Scope<'a>, OutboxError>>,
    means: Means<R>,
}

impl<'a, R> Future for Entering<'_, 'a, R> {
    type Output = Result<Run<'a, R>, R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let means = self.means;
        self.entering.as_mut().poll(cx).map(|entered| match entered {
            Ok(scope) => Ok(Run { scope, means }),
            Err(error) => Err((means.failed)(error)),
        })
    }
}

/// Enters the transaction, or gives the answer that says why not.
pub fn enter<'a, R>(origin: Origin<'a>, entry: Entry) -> Entering<'a, 'a, R>
where
    R: Answer,
    R::Error: FromOutboxError,
{
    Entering { entering: Box::pin(Scope::enter(origin, entry)), means: Means::new() }
}

/// Enters the transaction, trying again when the database is busy, or gives the answer that says why not.
pub fn enter_or_repeat<'f, 'a: 'f, R>(
    origin: Origin<'a>,
    entry: Entry,
    repeats: &'f mut Repeats,
) -> Entering<'f, 'a, R>
where
    R: Answer,
    R::Error: FromOutboxError,
{
    let entering = async move {
        loop {
            match Scope::enter(origin, entry).await {
                Ok(scope) => return Ok(scope),
                Err(error) => {
                    // Inside a transaction a failed entry has nothing to do with others.
                    let conflict = !matches!(origin, Origin::Transaction(_)) && error.is_conflict();
                    if !repeats.again(conflict).await {
                        return Err(error);
                    }
                }
            }
        }
    };
    Entering { entering: Box::pin(entering), means: Means::new() }
}

impl<R> Run<'_, R> {
    /// The transaction that the function works in.
    pub fn tx(&self) -> &OutboxTransaction {
        self.scope.tx()
    }

    /// Runs the function's body, in which functions that are given no transaction find this one.
    pub async fn within<F: Future>(&self, body: F) -> F::Output {
        within(self.tx(), body).await
    }

    /// Ends with the function's answer.
    pub async fn finish(self, answer: R) -> R {
        self.end(answer).await.0
    }

    /// Ends with the function's answer, or says that it is to run again.
    pub async fn finish_or_repeat(self, answer: R, repeats: &mut Repeats) -> ControlFlow<R> {
        let (answer, conflict) = self.end(answer).await;
        if repeats.again(conflict).await {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(answer)
        }
    }

    async fn end(self, answer: R) -> (R, bool) {
        let Self { scope, means } = self;
        match scope.finish((means.is_well)(&answer)).await {
            (Ended::AsSaid, conflict) => (answer, conflict),
            (Ended::NotCommitted(error), conflict) => ((means.failed)(error), conflict),
        }
    }
}

impl<T, E> Run<'_, Result<T, E>> {
    /// Emits an event made of what the function returned.
    pub fn emit<Event: OutboxEvent>(
        &self,
        answer: Result<T, E>,
        event: impl FnOnce(&T) -> Event,
    ) -> Result<T, E> {
        let value = answer?;
        match self.tx().emit(event(&value)) {
            Ok(_) => Ok(value),
            Err(error) => (self.means.failed)(error),
        }
    }
}

/// A function that works in a transaction of SeaORM's and emits what it returns.
pub struct Foreign<'a, R> {
    outbox: &'a Outbox,
    means: Means<R>,
}

impl<'a, R> Foreign<'a, R>
where
    R: Answer,
    R::Error: FromOutboxError,
{
    /// Begins one.
    pub const fn new(outbox: &'a Outbox) -> Self {
        Self { outbox, means: Means::new() }
    }
}

impl<T, E> Foreign<'_, Result<T, E>> {
    /// Saves an event made of what the function returned.
    pub async fn emit<C: InTransaction, Event: OutboxEvent>(
        self,
        txn: &C,
        answer: Result<T, E>,
        event: impl FnOnce(&T) -> Event,
    ) -> Result<T, E> {
        let value = answer?;
        let event = event(&value);
        match self.outbox.enqueue(txn, &event).await {
            Ok(_) => Ok(value),
            Err(error) => (self.means.failed)(error),
        }
    }
}

/// Waits between runs of a repeated transaction.
///
/// # Source
/// Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
pub struct Repeats {
    left: u32,
    wait: Duration,
}

impl Repeats {
    /// First wait: longer than most transactions, so that the other one has ended.
    const FIRST: Duration = Duration::from_millis(20);
    /// Longest wait: a caller is waiting too.
    const LONGEST: Duration = Duration::from_secs(1);

    /// Allows so many runs after the first.
    pub const fn new(times: u32) -> Self {
        Self { left: times, wait: Self::FIRST }
    }

    /// Waits and allows one more run, or says that there is none.
    async fn again(&mut self, conflict: bool) -> bool {
        if !conflict || self.left == 0 {
            return false;
        }
        self.left -= 1;
        tokio::time::sleep(jitter(self.wait)).await;
        self.wait = (self.wait * 2).min(Self::LONGEST);
        true
    }
}
