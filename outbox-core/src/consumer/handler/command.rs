//! Handlers of the commands of sagas.

use super::{EventHandler, HandlerEntry, HandlerOptions};
use crate::{consumer::ConsumerBuilder, event::DecodeEvent, outbox::ConsumerStore};

impl<S: ConsumerStore> ConsumerBuilder<S> {
    /// Adds the handler of the commands of sagas of the event's types; one handler a type, in one consumer.
    ///
    /// It runs [behind the barrier](crate::consumer), and its [reply](crate::consumer::HandlerContext::reply) goes to
    /// the saga. The consumer takes commands from services that [`commands_from`](Self::commands_from) names; a
    /// command from elsewhere, or with incomplete headers, becomes a dead letter. On an event without the
    /// headers of a saga the handler runs as with [`on`](Self::on), and a reply is emitted as an event.
    ///
    /// Handlers of the same type that were added with [`on`](Self::on), here or in another consumer, see a command as an event:
    /// they run once for each message, a repeat or an undoing included, and the saga receives no reply of theirs.
    ///
    /// ```
    /// # use outbox_core::{consumer::*, event::*, outbox::ConsumerStore};
    /// # struct Charge;
    /// # impl EventContract for Charge { const TYPES: &'static [EventType] = &[]; }
    /// # impl DecodeEvent for Charge { fn decode(_: &Message) -> Result<Self, DecodeError> { Ok(Self) } }
    /// # struct Sql;
    /// # async fn charge(command: Charge, cx: &HandlerContext<Sql>) -> Result<(), HandlerError> { let _ = (command, &cx.tx); Ok(()) }
    /// # fn example<S: ConsumerStore<Tx = Sql>>(outbox: &S) -> ConsumerBuilder<S> {
    /// Consumer::builder("payments", outbox).on_command("charge", charge).commands_from("/orders", "orders.replies")
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
        self.handlers.push(HandlerEntry::new(name.as_ref(), options, handler).for_commands());
        self
    }

    /// Takes commands of the sagas of a service and sends the replies to a topic: its `source`, and the topic of
    /// its [`reply_to`](crate::saga::SagasBuilder::reply_to), each as it is, of 1 to 255 bytes. Each call adds a
    /// service. Without a call the consumer takes no commands.
    ///
    /// A message names its source itself: let only trusted services publish, by HTTP's signatures or the
    /// broker's permissions.
    ///
    /// ```
    /// # use outbox_core::{consumer::ConsumerBuilder, outbox::ConsumerStore};
    /// # fn example<S: ConsumerStore>(payments: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// payments.commands_from("shop", "checkout.replies").commands_from("kiosk", "kiosk.replies")
    /// # }
    /// ```
    pub fn commands_from(mut self, source: impl Into<String>, topic: impl Into<String>) -> Self {
        self.commands.add(source.into(), topic.into());
        self
    }
}
