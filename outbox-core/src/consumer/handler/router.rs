//! Which handlers take a message.

use super::{EventHandler, HandlerContext, HandlerError, HandlerOptions, Tombstone, WriteWatch};
use crate::{
    event::{DecodeError, DecodeEvent, EventType, Message},
    failure::full_text,
    outbox::{Awaited, DeclaredHandler, DeclaredSaga, DeclaredType, Store},
    saga::{Replies, SagaSource, is_answer},
};
use futures_util::future::BoxFuture;
use std::{marker::PhantomData, sync::Arc};

/// What becomes of a message whose type no handler takes, neither here nor in another instance of the consumer.
///
/// What another instance takes is stored for it, whatever the policy is. Where handlers acknowledge by hand, nothing is stored: what
/// would be is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnhandledPolicy {
    /// It is acknowledged and counted, with one warning in the log for each type. The default: a topic carries more types than
    /// one consumer cares for.
    #[default]
    Ack,
    /// It is stored, until an instance comes that takes its type or [its time](super::super::Consumer::keep_unknown) is over;
    /// then it becomes a dead letter. For queues whose every message is meant for this consumer: a new type may then be published
    /// before any instance that knows it has started. Such a message may be overtaken by a later one of its key that comes when
    /// that instance runs.
    Defer,
    /// It becomes a dead letter: where every message is meant for this consumer, an unknown one is a fault of its sender.
    DeadLetter,
    /// It is rejected, and the broker does with it what it does with those.
    Reject,
    /// It is returned after a second, to come again. A broker that counts deliveries gives up after a while; a queue of
    /// RabbitMQ 4 does after 20, and needs a dead-letter exchange then.
    Nack,
}

/// Name under which the inbox keeps answers to sagas.
const REPLIES: &str = "saga-replies";

/// A handler behind its name, for the event types that it takes.
pub(in crate::consumer) struct Route<S: Store> {
    pub(in crate::consumer) name: Arc<str>,
    pub(in crate::consumer) options: HandlerOptions,
    pub(in crate::consumer) write_watch: WriteWatch,
    /// Whether it answers commands of sagas; to any other handler they are events.
    pub(in crate::consumer) answers: bool,
    takes: Takes,
    handler: Box<dyn Erased<S>>,
}

/// What a handler takes.
enum Takes {
    Types(&'static [EventType]),
    /// Answers to the commands of these sagas, of these types where one is awaited.
    Answers(Vec<DeclaredSaga>, Vec<DeclaredType>),
    /// Messages without content, of any type.
    Tombstones,
}

impl<S: Store> Route<S> {
    pub(in crate::consumer) fn new<E, H>(name: &str, options: HandlerOptions, handler: H) -> Self
    where
        E: DecodeEvent + Send + 'static,
        H: EventHandler<E, S>,
    {
        let handler = Box::new(Typed(handler, PhantomData::<fn(E)>));
        let write_watch = WriteWatch::default();
        Self {
            name: name.into(),
            options,
            write_watch,
            answers: false,
            takes: Takes::Types(E::TYPES),
            handler,
        }
    }

    /// Makes it the one that answers commands of sagas.
    pub(in crate::consumer) fn answering(self) -> Self {
        Self { answers: true, ..self }
    }

    /// Gives the types whose commands it answers.
    pub(in crate::consumer) fn answered_types(
        &self,
    ) -> impl Iterator<Item = &'static str> + use<S> {
        let types = match &self.takes {
            Takes::Types(types) if self.answers => *types,
            _ => &[],
        };
        types.iter().map(|t| t.name)
    }

    pub(in crate::consumer) fn tombstones<H: EventHandler<Tombstone, S>>(
        name: &str,
        handler: H,
    ) -> Self {
        Self { takes: Takes::Tombstones, ..Self::new(name, HandlerOptions::new(), handler) }
    }

    pub(in crate::consumer) fn answers(replies: Replies<S>) -> Self
    where
        S: SagaSource,
    {
        let options = HandlerOptions::new();
        let takes = Takes::Answers(replies.sagas(), replies.types());
        let write_watch = WriteWatch::default();
        Self {
            name: REPLIES.into(),
            options,
            write_watch,
            answers: false,
            takes,
            handler: Box::new(replies),
        }
    }

    /// Gives what an instance declares of it.
    pub(in crate::consumer) fn declared(&self) -> DeclaredHandler {
        let (types, sagas) = match &self.takes {
            Takes::Types(types) => (types.iter().map(DeclaredType::from).collect(), Vec::new()),
            Takes::Answers(sagas, types) => (types.clone(), sagas.clone()),
            Takes::Tombstones => (Vec::new(), Vec::new()),
        };
        let renamed_from = self.options.renamed_from.map(str::to_owned);
        DeclaredHandler { name: self.name.to_string(), types, sagas, renamed_from }
    }

    pub(in crate::consumer) fn takes(&self, message: &Message) -> bool {
        match &self.takes {
            Takes::Tombstones => message.is_tombstone(),
            _ if message.is_tombstone() => false,
            Takes::Types(types) => types.iter().any(|t| t.name == message.event_type),
            Takes::Answers(..) => is_answer(&message.headers),
        }
    }

    /// Gives the names under which the inbox and stored deliveries know it: the one that it had before, then its own.
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

trait Erased<S: Store>: Send + Sync + 'static {
    fn handle<'a>(
        &'a self,
        cx: &'a HandlerContext<S::Tx>,
    ) -> BoxFuture<'a, Result<(), HandlerError>>;
}

impl<S: SagaSource> Erased<S> for Replies<S> {
    fn handle<'a>(
        &'a self,
        cx: &'a HandlerContext<S::Tx>,
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(self.take(&cx.tx, cx.message()))
    }
}

struct Typed<E, H>(H, PhantomData<fn(E)>);

impl<E, H, S> Erased<S> for Typed<E, H>
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

/// Says what it means that a message cannot be read as one of these types: a newer version is another instance's to read.
fn undecoded(types: &[EventType], message: &Message, error: &DecodeError) -> HandlerError {
    let is_newer =
        |t: &EventType| t.name == message.event_type && t.version < message.event_version;
    if types.iter().any(is_newer) {
        return HandlerError::unknown(Awaited::type_of(message));
    }
    HandlerError::undecodable(full_text(error))
}
