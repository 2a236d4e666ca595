//! Handlers that answer the commands of sagas.

use super::{EventHandler, HandlerOptions, Route};
use crate::{consumer::Consumer, event::DecodeEvent, outbox::ConsumerStore};

impl<S: ConsumerStore> Consumer<S> {
    /// Adds the handler that answers the commands of sagas of the event's types; one handler a type, in one consumer.
    ///
    /// It runs [behind the barrier](crate::consumer), and what it [replies](crate::consumer::HandlerContext::reply) is the saga's answer. Commands are
    /// taken from services that [`commands_from`](Self::commands_from) names; one from elsewhere, or whose headers are not whole,
    /// becomes a dead letter and does nothing. On an event without the headers of a saga it runs as with [`on`](Self::on), and a
    /// reply is emitted.
    ///
    /// Handlers of the same type that were added with [`on`](Self::on), here or in another consumer, see a command as an event:
    /// they run once for each message, a repeat or an undoing included, and nobody hears what they say.
    ///
    /// ```
    /// # use outbox_core::{consumer::*, event::*, outbox::ConsumerStore};
    /// # struct Charge;
    /// # impl EventContract for Charge { const TYPES: &'static [EventType] = &[]; }
    /// # impl DecodeEvent for Charge { fn decode(_: &Message) -> Result<Self, DecodeError> { Ok(Self) } }
    /// # struct Sql;
    /// # async fn charge(command: Charge, cx: &HandlerContext<Sql>) -> Result<(), HandlerError> { let _ = (command, &cx.tx); Ok(()) }
    /// # fn example<S: ConsumerStore<Tx = Sql>>(outbox: &S) -> Consumer<S> {
    /// Consumer::new("payments", outbox).on_command("charge", charge).commands_from("/orders", "orders.replies")
    /// # }
    /// ```
    pub fn on_command<E, H>(self, name: impl AsRef<str>, handler: H) -> Self
    where
        E: DecodeEvent + Send + 'static,
        H: EventHandler<E, S>,
    {
        self.on_command_with(name, HandlerOptions::new(), handler)
    }

    /// Adds a handler as [`on_command`](Self::on_command) does, with options of its own.
    pub fn on_command_with<E, H>(
        mut self,
        name: impl AsRef<str>,
        options: HandlerOptions,
        handler: H,
    ) -> Self
    where
        E: DecodeEvent + Send + 'static,
        H: EventHandler<E, S>,
    {
        self.routes.push(Route::new(name.as_ref(), options, handler).answering());
        self
    }

    /// Takes commands of the sagas of a service, and lets their answers go to a topic: its `source`, and the topic of its
    /// [`reply_to`](crate::saga::SagasBuilder::reply_to), each as it is, of 1 to 255 bytes. Called again, it takes more. None are
    /// taken unless it is called.
    ///
    /// A message says itself where it comes from: let only those publish whom you believe that, by HTTP's signatures or the
    /// broker's permissions.
    pub fn commands_from(mut self, source: impl Into<String>, topic: impl Into<String>) -> Self {
        self.commands.add(source.into(), topic.into());
        self
    }
}
