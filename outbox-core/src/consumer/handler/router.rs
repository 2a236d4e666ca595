//! Which handlers take a message.

use super::{EventHandler, HandlerContext, HandlerError};
use crate::{
    event::{DecodeEvent, EventType, Message},
    failure::full_text,
    outbox::Store,
    saga::{Replies, SagaSource, is_answer},
};
use futures_util::future::BoxFuture;
use std::{marker::PhantomData, sync::Arc};

/// What becomes of a message that no handler takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownPolicy {
    /// It is acknowledged, with a line in the log at level debug. The default: a topic carries more types than one
    /// consumer cares for.
    #[default]
    Ack,
    /// It becomes a dead letter: where every message is meant for this consumer, an unknown one is a fault of its sender.
    DeadLetter,
    /// It is rejected, and the broker does with it what it does with those.
    Reject,
    /// It is returned after a second, to come again: during a rollout, another instance may know it. A broker that counts
    /// deliveries gives up after a while; a queue of RabbitMQ 4 does after 20, and needs a dead-letter exchange then.
    Nack,
}

/// Name under which the inbox keeps answers to sagas.
const REPLIES: &str = "saga-replies";

/// A handler behind its name, for the event types that it takes.
pub(in crate::consumer) struct Route<S: Store> {
    pub(in crate::consumer) name: Arc<str>,
    takes: Takes,
    handler: Box<dyn Erased<S>>,
}

/// What a handler takes.
enum Takes {
    Types(&'static [EventType]),
    /// Answers to the commands of sagas.
    Answers,
}

impl<S: Store> Route<S> {
    pub(in crate::consumer) fn new<E, H>(name: &str, handler: H) -> Self
    where
        E: DecodeEvent + Send + 'static,
        H: EventHandler<E, S>,
    {
        let handler = Box::new(Typed(handler, PhantomData::<fn(E)>));
        Self { name: name.into(), takes: Takes::Types(E::TYPES), handler }
    }

    pub(in crate::consumer) fn answers(replies: Replies<S>) -> Self
    where
        S: SagaSource,
    {
        Self { name: REPLIES.into(), takes: Takes::Answers, handler: Box::new(replies) }
    }

    pub(in crate::consumer) fn takes(&self, message: &Message) -> bool {
        match self.takes {
            Takes::Types(types) => types.iter().any(|t| t.name == message.event_type),
            Takes::Answers => is_answer(&message.headers),
        }
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
    fn handle<'a>(&'a self, cx: &'a HandlerContext<S::Tx>) -> BoxFuture<'a, Result<(), HandlerError>>;
}

impl<S: SagaSource> Erased<S> for Replies<S> {
    fn handle<'a>(&'a self, cx: &'a HandlerContext<S::Tx>) -> BoxFuture<'a, Result<(), HandlerError>> {
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
    fn handle<'a>(&'a self, cx: &'a HandlerContext<S::Tx>) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            let event = E::decode(cx.message()).map_err(|e| HandlerError::undecodable(full_text(&e)))?;
            self.0.handle(event, cx).await
        })
    }
}
