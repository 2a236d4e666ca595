//! What users write: handlers, their context, and what they may answer.

mod answer;
mod layer;
mod router;
mod set;

pub(super) use answer::Given;
pub use answer::ReplyError;
pub(super) use layer::Layers;
pub use layer::{ConcurrencyLimit, HandlerLayer, Next, Timeout};
pub(super) use router::Route;
pub use router::UnknownPolicy;
pub use set::{ContextTx, EventHandlers, HandlerSet};

use super::barrier::Command;
use crate::{event::Message, outbox::Store, transport::Delivery};
use answer::Answers;
use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a handler works in: the inbox's transaction and the message.
///
/// What is written through [`tx`](Self::tx) commits together with the inbox row, or not at all.
#[derive(Debug)]
#[non_exhaustive]
pub struct HandlerContext<Tx> {
    /// The transaction, which the consumer commits after the handler has returned `Ok`.
    pub tx: Tx,
    message: Message,
    handler: Arc<str>,
    attempt: u32,
    delivery: Option<u32>,
    slot: Option<Slot>,
    answers: Answers,
}

/// Where a delivery waits for whoever answers for it.
pub(super) type Slot = Arc<Mutex<Option<Delivery>>>;

impl<Tx> HandlerContext<Tx> {
    pub(super) fn new(tx: Tx, message: Message, handler: Arc<str>, attempt: u32, delivery: Option<u32>) -> Self {
        Self { tx, message, handler, attempt, delivery, slot: None, answers: Answers::default() }
    }

    /// Puts the delivery into the handler's hands.
    pub(super) fn with_delivery(mut self, slot: Option<Slot>) -> Self {
        self.slot = slot;
        self
    }

    /// Says that the message is a command.
    pub(super) fn for_command(mut self, command: Option<Command>) -> Self {
        self.answers = Answers::to(command);
        self
    }

    /// Gives the transaction back, with what the handler said.
    pub(super) fn into_parts(self) -> (Tx, Option<Given>) {
        (self.tx, self.answers.into_given())
    }

    /// Gives the message, with its headers.
    #[must_use]
    pub const fn message(&self) -> &Message {
        &self.message
    }

    /// Gives the handler's stable name.
    #[must_use]
    pub fn handler(&self) -> &str {
        &self.handler
    }

    /// Tells which run of the handler with this message this is, from 1, as far as runs were counted: those while the
    /// delivery was held, and those after it was stored.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Tells which delivery of the message this is as the broker counts, from 1; `None` where it does not count.
    #[must_use]
    pub const fn delivery_attempt(&self) -> Option<u32> {
        self.delivery
    }

    /// Takes the delivery, to answer for it by hand; `None` when it was taken before, or is not for the handler to
    /// answer: see [`AckMode::Manual`](super::AckMode::Manual).
    ///
    /// It may be kept and answered after the handler has returned. Dropped without an answer, it comes again.
    #[must_use]
    pub fn take_delivery(&self) -> Option<Delivery> {
        self.slot.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Why a handler did not do its work, and what should follow.
///
/// Every error converts into one that is tried again, so that `?` works; `HandlerError` itself is no
/// [`std::error::Error`] for that reason.
pub struct HandlerError(Kind);

/// What a handler asks for.
pub(super) enum Kind {
    Retry(BoxError),
    Reject(String),
    Undecodable(String),
    Snooze(Duration),
}

impl HandlerError {
    /// The work may succeed later: run the handler again, as the retry policy says.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self(Kind::Retry(error.into()))
    }

    /// The work can never succeed: the message becomes a dead letter at once.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self(Kind::Reject(reason.into()))
    }

    /// It is too early for the work: run the handler again after this time, 100 ms at least. No failure is counted.
    #[must_use]
    pub const fn snooze(wait: Duration) -> Self {
        Self(Kind::Snooze(wait))
    }

    /// The message is not what the handler takes.
    pub(super) fn undecodable(reason: impl Into<String>) -> Self {
        Self(Kind::Undecodable(reason.into()))
    }

    pub(super) fn into_kind(self) -> Kind {
        self.0
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Retry(error) => f.debug_tuple("Retry").field(error).finish(),
            Kind::Reject(reason) => f.debug_tuple("Reject").field(reason).finish(),
            Kind::Undecodable(reason) => f.debug_tuple("Undecodable").field(reason).finish(),
            Kind::Snooze(wait) => f.debug_tuple("Snooze").field(wait).finish(),
        }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Retry(error) => error.fmt(f),
            Kind::Reject(reason) => write!(f, "rejected: {reason}"),
            Kind::Undecodable(reason) => write!(f, "undecodable: {reason}"),
            Kind::Snooze(wait) => write!(f, "too early by {wait:?}"),
        }
    }
}

impl<E: Into<BoxError>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

/// Handles events of one type, in a transaction of the store.
///
/// Plain functions are handlers already: `async fn(E, &HandlerContext<S::Tx>) -> Result<(), Err>`, where `Err` is any
/// error, a boxed one, or [`HandlerError`]. Implement it for types that carry what the work needs:
///
/// ```
/// # use outbox_core::{consumer::{EventHandler, HandlerContext, HandlerError}, outbox::Store};
/// # struct OrderPlaced { total: u64 }
/// struct Billing { rate: u64 }
///
/// impl<S: Store> EventHandler<OrderPlaced, S> for Billing {
///     async fn handle(&self, event: OrderPlaced, cx: &HandlerContext<S::Tx>) -> Result<(), HandlerError> {
///         let fee = event.total.checked_mul(self.rate).ok_or_else(|| HandlerError::reject("the total is too high"))?;
///         // .. write the fee through `cx.tx` ..
/// #       let _ = (fee, cx);
///         Ok(())
///     }
/// }
/// ```
///
/// # Cancel safety
/// The consumer may drop the future at a shutdown's deadline; its transaction is then rolled back.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler of `{E}`",
    label = "not a handler",
    note = "write `async fn(E, &HandlerContext) -> Result<(), Err>` whose future is `Send`, or implement `EventHandler<{E}, {S}>`"
)]
pub trait EventHandler<E, S: Store>: Send + Sync + 'static {
    /// Handles one event.
    fn handle(&self, event: E, cx: &HandlerContext<S::Tx>) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

impl<E, S, F> EventHandler<E, S> for F
where
    E: Send + 'static,
    S: Store,
    F: for<'a> HandlerFn<'a, E, HandlerContext<S::Tx>>,
{
    async fn handle(&self, event: E, cx: &HandlerContext<S::Tx>) -> Result<(), HandlerError> {
        self.call(event, cx).await.map_err(Into::into)
    }
}

/// A function that is a handler; names its future, which may borrow the context. Implemented for all that fit.
// `AsyncFn` bounds cannot say that the future is `Send`.
pub trait HandlerFn<'a, E, Cx: 'a>: Send + Sync + 'static {
    /// The function's error.
    type Error: Into<HandlerError>;
    /// The function's future.
    type Future: Future<Output = Result<(), Self::Error>> + Send + 'a;

    /// Calls the function.
    fn call(&self, event: E, cx: &'a Cx) -> Self::Future;
}

impl<'a, E, Cx, F, Fut, Error> HandlerFn<'a, E, Cx> for F
where
    Cx: 'a,
    F: Fn(E, &'a Cx) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Error>> + Send + 'a,
    Error: Into<HandlerError>,
{
    type Error = Error;
    type Future = Fut;

    fn call(&self, event: E, cx: &'a Cx) -> Fut {
        self(event, cx)
    }
}
