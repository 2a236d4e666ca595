//! Which handlers take a message.

use super::{EventHandler, HandlerContext, HandlerError, HandlerOptions, Tombstone, WriteWatch};
use crate::{
    consumer::batch::Pace,
    event::{DecodeError, DecodeEvent, EventType, Message},
    failure::full_text,
    outbox::{Awaited, DeclaredHandler, DeclaredSaga, DeclaredType, Store},
    saga::{Replies, ReplyFailure, SagaSource, is_reply},
};
use futures_util::future::BoxFuture;
use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What the consumer does with a message whose type no handler takes, neither here nor in another instance.
///
/// A message that another instance takes is stored for it, whatever the policy is. Under
/// [`AckMode::Manual`](crate::consumer::AckMode::Manual) nothing is stored: such a message is returned.
///
/// ```
/// # use outbox_core::{consumer::{ConsumerBuilder, UnhandledPolicy}, outbox::ConsumerStore};
/// # fn example<S: ConsumerStore>(payments: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
/// payments.unhandled(UnhandledPolicy::Defer) // a new type may arrive before its release has started
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnhandledPolicy {
    /// Acknowledges and counts it, with one warning in the log for each type. The default: a topic carries more
    /// types than one consumer handles.
    #[default]
    Ack,
    /// Stores it until an instance starts that takes its type, or [its time](super::super::ConsumerBuilder::keep_unknown)
    /// is over; then it becomes a dead letter. For queues whose every message is meant for this consumer: a
    /// new type may then be published before an instance that knows it has started. A later message of its
    /// key that arrives when that instance runs may overtake it.
    Defer,
    /// Writes a dead letter: where every message is meant for this consumer, an unknown type is a mistake of the
    /// sender.
    DeadLetter,
    /// Rejects it: the broker does what it is configured to do with rejected messages.
    Reject,
    /// Returns it after a second, to be delivered again. A broker that counts deliveries gives up after a
    /// while; a queue of RabbitMQ 4 does after 20, and needs a dead-letter exchange then.
    Nack,
}

/// Name under which the inbox records replies to sagas.
const REPLIES: &str = "saga-replies";

/// A handler with its name and the messages that it accepts.
pub(in crate::consumer) struct HandlerEntry<S: Store> {
    pub(in crate::consumer) name: Arc<str>,
    pub(in crate::consumer) options: HandlerOptions,
    pub(in crate::consumer) write_watch: WriteWatch,
    pace: Mutex<Pace>,
    /// Whether it handles commands of sagas; to any other handler they are events.
    pub(in crate::consumer) handles_commands: bool,
    accepts: Accepts,
    handler: Box<dyn ErasedHandler<S>>,
}

/// The messages that a handler accepts.
enum Accepts {
    Types(&'static [EventType]),
    /// Replies to the commands of these sagas, of these types where a step expects one.
    Replies(Vec<DeclaredSaga>, Vec<DeclaredType>),
    /// Messages without content, of any type.
    Tombstones,
}

impl<S: Store> HandlerEntry<S> {
    pub(in crate::consumer) fn new<E, H>(name: &str, options: HandlerOptions, handler: H) -> Self
    where
        E: DecodeEvent + Send + 'static,
        H: EventHandler<E, S>,
    {
        let handler = Box::new(TypedHandler(handler, PhantomData::<fn(E)>));
        let write_watch = WriteWatch::default();
        Self {
            name: name.into(),
            options,
            write_watch,
            pace: Mutex::default(),
            handles_commands: false,
            accepts: Accepts::Types(E::TYPES),
            handler,
        }
    }

    /// Makes it a handler of commands of sagas.
    pub(in crate::consumer) fn for_commands(self) -> Self {
        Self { handles_commands: true, ..self }
    }

    /// Gives the types whose commands it handles.
    pub(in crate::consumer) fn command_types(&self) -> impl Iterator<Item = &'static str> + use<S> {
        let types = match &self.accepts {
            Accepts::Types(types) if self.handles_commands => *types,
            _ => &[],
        };
        types.iter().map(|t| t.name)
    }

    pub(in crate::consumer) fn tombstones<H: EventHandler<Tombstone, S>>(
        name: &str,
        handler: H,
    ) -> Self {
        Self { accepts: Accepts::Tombstones, ..Self::new(name, HandlerOptions::new(), handler) }
    }

    pub(in crate::consumer) fn for_replies(replies: Replies<S>) -> Self
    where
        S: SagaSource,
    {
        let options = HandlerOptions::new();
        let accepts = Accepts::Replies(replies.sagas(), replies.types());
        let write_watch = WriteWatch::default();
        Self {
            name: REPLIES.into(),
            options,
            write_watch,
            pace: Mutex::default(),
            handles_commands: false,
            accepts,
            handler: Box::new(replies),
        }
    }

    /// Gives its declaration in an instance's row.
    pub(in crate::consumer) fn declared(&self) -> DeclaredHandler {
        let (types, sagas) = match &self.accepts {
            Accepts::Types(types) => (types.iter().map(DeclaredType::from).collect(), Vec::new()),
            Accepts::Replies(sagas, types) => (types.clone(), sagas.clone()),
            Accepts::Tombstones => (Vec::new(), Vec::new()),
        };
        let renamed_from = self.options.renamed_from.map(str::to_owned);
        DeclaredHandler { name: self.name.to_string(), types, sagas, renamed_from }
    }

    pub(in crate::consumer) fn takes(&self, message: &Message) -> bool {
        match &self.accepts {
            Accepts::Tombstones => message.is_tombstone(),
            _ if message.is_tombstone() => false,
            Accepts::Types(types) => types.iter().any(|t| t.name == message.event_type),
            Accepts::Replies(..) => is_reply(&message.headers),
        }
    }

    /// Tells whether its deliveries may share a transaction with others. Not so where the handler's effects are elsewhere,
    /// where it has more than one inbox row, where the transaction begins in another way, and where it locks a row of the
    /// barrier or of a saga, for which the saga would wait.
    pub(in crate::consumer) const fn may_share(&self) -> bool {
        let HandlerOptions { alone, no_writes, no_try, deferred_lock, renamed_from, timeout: _ } =
            self.options;
        let is_inside = !alone && !no_writes && no_try.is_none();
        let plain = is_inside && !deferred_lock && renamed_from.is_none();
        plain && !self.handles_commands && !matches!(self.accepts, Accepts::Replies(..))
    }

    /// Gives its pace, locked.
    pub(in crate::consumer) fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives its names in the inbox and in stored deliveries: the former one, then its own.
    pub(in crate::consumer) fn names(&self) -> impl Iterator<Item = &str> {
        self.options.renamed_from.into_iter().chain([&*self.name])
    }

    /// Decodes the message and runs the handler.
    pub(in crate::consumer) fn handle<'a>(
        &'a self,
        cx: &'a HandlerContext<S::Tx>,
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        self.handler.handle(cx)
    }
}

trait ErasedHandler<S: Store>: Send + Sync + 'static {
    fn handle<'a>(
        &'a self,
        cx: &'a HandlerContext<S::Tx>,
    ) -> BoxFuture<'a, Result<(), HandlerError>>;
}

impl<S: SagaSource> ErasedHandler<S> for Replies<S> {
    fn handle<'a>(
        &'a self,
        cx: &'a HandlerContext<S::Tx>,
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            self.take(&cx.tx, cx.message()).await.map_err(|failure| match failure {
                ReplyFailure::Rejected(reason) => HandlerError::reject(reason),
                ReplyFailure::Awaits(awaited) => HandlerError::unknown(awaited),
                ReplyFailure::Store(error) => HandlerError::retry(error),
            })
        })
    }
}

struct TypedHandler<E, H>(H, PhantomData<fn(E)>);

impl<E, H, S> ErasedHandler<S> for TypedHandler<E, H>
where
    E: DecodeEvent + Send + 'static,
    S: Store,
    H: EventHandler<E, S>,
{
    fn handle<'a>(
        &'a self,
        cx: &'a HandlerContext<S::Tx>,
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            let event = E::decode(cx.message())
                .map_err(|error| undecoded(E::TYPES, cx.message(), &error))?;
            self.0.handle(event, cx).await
        })
    }
}

/// Gives the error of a message that does not decode as one of these types. A newer version is for another
/// instance.
fn undecoded(types: &[EventType], message: &Message, error: &DecodeError) -> HandlerError {
    let is_newer =
        |t: &EventType| t.name == message.event_type && t.version < message.event_version;
    if types.iter().any(is_newer) {
        return HandlerError::unknown(Awaited::type_of(message));
    }
    HandlerError::undecodable(full_text(error))
}
