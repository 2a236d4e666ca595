//! What users write: handlers, their context, and their results.

mod capturing;
mod command;
mod delivery_slot;
mod layer;
mod options;
mod reply;
mod router;
mod set;
mod tombstone;
mod write_watch;

pub use capturing::capturing;
pub(super) use delivery_slot::{DeliverySlot, SharedSlot};
pub(super) use layer::Layers;
pub use layer::{ConcurrencyLimit, HandlerLayer, Next, Timeout};
pub use options::HandlerOptions;
pub(super) use reply::PendingReply;
pub use reply::ReplyError;
pub(super) use router::HandlerEntry;
pub use router::UnhandledPolicy;
pub use set::{ContextTx, EventHandlers, HandlerSet};
pub use tombstone::Tombstone;
use write_watch::WriteWatch;

use super::barrier::Command;
use crate::{
    event::Message,
    failure::BoxError,
    outbox::{Awaited, Store},
    transport::Delivery,
};
use reply::ReplySlot;
use std::{fmt, future::Future, sync::Arc, time::Duration};

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
    slot: Option<SharedSlot>,
    reply: ReplySlot,
}

impl<Tx> HandlerContext<Tx> {
    pub(super) fn new(
        tx: Tx,
        message: Message,
        handler: Arc<str>,
        attempt: u32,
        delivery: Option<u32>,
    ) -> Self {
        Self { tx, message, handler, attempt, delivery, slot: None, reply: ReplySlot::default() }
    }

    /// Makes a context for the unit test of a handler: its first run with a message, under the name `test`.
    ///
    /// ```
    /// # use outbox_core::{consumer::HandlerContext, event::{EncodeError, Message, OutboxEvent}};
    /// # fn example(order_placed: &dyn OutboxEvent, tx: ()) -> Result<(), EncodeError> {
    /// let cx = HandlerContext::for_test(tx, Message::for_test(order_placed)?);
    /// assert_eq!(cx.attempt(), 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn for_test(tx: Tx, message: Message) -> Self {
        Self::new(tx, message, "test".into(), 1, None)
    }

    /// Lets the handler take the delivery.
    pub(super) fn with_delivery(mut self, slot: Option<SharedSlot>) -> Self {
        self.slot = slot;
        self
    }

    /// Sets the command that the message is.
    pub(super) fn for_command(mut self, command: Option<Command>) -> Self {
        self.reply = ReplySlot::of(command);
        self
    }

    /// Gives the transaction back, with the handler's reply.
    pub(super) fn into_parts(self) -> (Tx, Option<PendingReply>) {
        (self.tx, self.reply.into_pending())
    }

    /// Gives the message, with its headers.
    ///
    /// ```
    /// # use outbox_core::consumer::{HandlerContext, HandlerError};
    /// # struct OrderPlaced;
    /// # struct Sql;
    /// async fn bill(order: OrderPlaced, cx: &HandlerContext<Sql>) -> Result<(), HandlerError> {
    ///     let tenant = cx.message().headers.get("tenant").unwrap_or("none");
    ///     println!("{} of {} for tenant {tenant}", cx.message().event_type, cx.message().source);
    /// #   let _ = order;
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub const fn message(&self) -> &Message {
        &self.message
    }

    /// Gives the handler's stable name.
    #[must_use]
    pub fn handler(&self) -> &str {
        &self.handler
    }

    /// Tells which run of the handler with this message this is, from 1, as far as runs were counted: those while
    /// the delivery stayed unacknowledged, and those after it was stored.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Tells which delivery of the message this is as the broker counts, from 1; `None` where it does not count.
    #[must_use]
    pub const fn delivery_attempt(&self) -> Option<u32> {
        self.delivery
    }

    /// Asks for the delivery to be acknowledged when the handler has returned `Ok` and its transaction is committed, under
    /// [`AckMode::Manual`](super::AckMode::Manual). Where the handler fails or the commit does, the delivery is returned.
    ///
    /// Tells whether the consumer still has the delivery: `false` after [`take_delivery`](Self::take_delivery), and under the
    /// other modes, which acknowledge by themselves. Of several handlers each has to ask.
    ///
    /// ```
    /// # use outbox_core::consumer::{HandlerContext, HandlerError};
    /// # struct OrderPlaced;
    /// # struct Sql;
    /// async fn bill(order: OrderPlaced, cx: &HandlerContext<Sql>) -> Result<(), HandlerError> {
    ///     // .. write through `cx.tx` ..
    ///     cx.ack_after_commit();
    ///     Ok(())
    /// }
    /// ```
    pub fn ack_after_commit(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.ack_after_commit())
    }

    /// Takes the delivery, to acknowledge it manually; `None` when a handler took it before, or the consumer
    /// acknowledges it: see [`AckMode::Manual`](super::AckMode::Manual).
    ///
    /// The handler may keep it and acknowledge it after it has returned. Dropped without an ack decision, the
    /// delivery is returned.
    ///
    /// The ack decision reaches the broker at once, and **inside of the handler that is before the commit**: after an `ack()`
    /// there the broker never delivers the message again, also where the transaction is rolled back, and a process that dies
    /// before its commit loses the message. To acknowledge after the commit, call
    /// [`ack_after_commit`](Self::ack_after_commit). Where a transaction is rolled back whose message was acknowledged in it, the
    /// message becomes a dead letter ([`NotRetried`](crate::failure::DeadReason::NotRetried)), and an error is logged.
    ///
    /// ```
    /// # use outbox_core::consumer::{HandlerContext, HandlerError};
    /// # struct ReportRequested;
    /// # struct Sql;
    /// # async fn write_report(_: ReportRequested) {}
    /// async fn report(request: ReportRequested, cx: &HandlerContext<Sql>) -> Result<(), HandlerError> {
    ///     let Some(delivery) = cx.take_delivery() else { return Ok(()) };
    ///     tokio::spawn(async move {
    ///         write_report(request).await; // longer than any handler may take
    ///         let _ = delivery.ack().await;
    ///     });
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub fn take_delivery(&self) -> Option<Delivery> {
        self.slot.as_ref()?.give()
    }
}

/// Why a handler did not do its work, and what should follow.
///
/// Every error converts into one that is tried again, so that `?` works; `HandlerError` itself is no
/// [`std::error::Error`] for that reason.
///
/// ```
/// # use outbox_core::consumer::{HandlerContext, HandlerError};
/// # use std::time::Duration;
/// # struct Charge { cents: i64, due_in: Duration }
/// # struct Sql;
/// # async fn capture(_: i64) -> Result<(), std::io::Error> { Ok(()) }
/// async fn charge(command: Charge, cx: &HandlerContext<Sql>) -> Result<(), HandlerError> {
///     if command.cents <= 0 {
///         return Err(HandlerError::reject("an amount is positive")); // a dead letter at once
///     }
///     if !command.due_in.is_zero() {
///         return Err(HandlerError::snooze(command.due_in)); // later; no failure is counted
///     }
/// #   let _ = cx;
///     Ok(capture(command.cents).await?) // an error is tried again
/// }
/// ```
pub struct HandlerError(Kind);

/// The kind of a handler's error.
pub(super) enum Kind {
    Retry(BoxError),
    Reject(String),
    Undecodable(String),
    Snooze(Duration),
    Unknown(Awaited),
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

    /// The message is for an instance that knows this, which this one does not.
    pub(super) fn unknown(awaited: Awaited) -> Self {
        Self(Kind::Unknown(awaited))
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
            Kind::Unknown(awaited) => f.debug_tuple("Unknown").field(awaited).finish(),
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
            Kind::Unknown(awaited) => write!(f, "{awaited} is not known here"),
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
    note = "write `async fn(event: {E}, cx: &HandlerContext) -> Result<(), Err>`, with any error for `Err`, whose future is `Send`; \
            `capturing` takes closures that capture; a type of yours implements `EventHandler<{E}, {S}>`"
)]
pub trait EventHandler<E, S: Store>: Send + Sync + 'static {
    /// Handles one event.
    fn handle(
        &self,
        event: E,
        cx: &HandlerContext<S::Tx>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

// Otherwise its bounds are told in place of the text above.
#[diagnostic::do_not_recommend]
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

#[diagnostic::do_not_recommend]
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
