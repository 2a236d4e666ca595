//! The reply of a handler to a command of a saga.

use super::HandlerContext;
use crate::{
    consumer::barrier::{Command, rejection},
    event::{EncodeError, EventMeta, NewEvent, OutboxEvent},
    outbox::StoredReply,
    saga::{CommandId, REJECTED},
};
use bytes::Bytes;
use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

/// A reply that the context did not take.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The event has no encoding, or its envelope breaks a rule.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The handler has replied already.
    #[error("the handler has replied already: a message has one reply")]
    AlreadyReplied,
    /// No saga receives a reason.
    #[error(
        "the message is no command of a saga, or the handler was added with `on` and not with `on_command`, so that no saga \
         receives a reason: emit an event with `reject`, or make the message a dead letter with `HandlerError::reject`"
    )]
    NoCommand,
}

/// A handler's reply, which the consumer sends when the handler has returned `Ok`.
#[derive(Clone)]
pub(in crate::consumer) struct PendingReply {
    /// Whether it rejects the command.
    pub(in crate::consumer) is_rejection: bool,
    pub(in crate::consumer) event: NewEvent,
}

/// The command that a handler runs for, and its reply.
#[derive(Default)]
pub(super) struct ReplySlot {
    command: Option<Command>,
    pending: Mutex<Option<PendingReply>>,
}

impl fmt::Debug for ReplySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplySlot")
            .field("command", &self.command.as_ref().map(|c| &c.id))
            .finish_non_exhaustive()
    }
}

impl ReplySlot {
    pub(super) fn of(command: Option<Command>) -> Self {
        Self { command, pending: Mutex::default() }
    }

    fn fill(&self, is_rejection: bool, event: NewEvent) -> Result<(), ReplyError> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.is_some() {
            return Err(ReplyError::AlreadyReplied);
        }
        *pending = Some(PendingReply { is_rejection, event });
        Ok(())
    }

    pub(super) fn into_pending(self) -> Option<PendingReply> {
        self.pending.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Tx> HandlerContext<Tx> {
    /// Gives the id of the command that the message is; `None` for any other message, such as a reply, and for a
    /// handler that was not added with [`on_command`](crate::consumer::ConsumerBuilder::on_command).
    ///
    /// A handler that takes both the commands that do a step and those that undo it tells them apart by
    /// [`phase`](crate::saga::CommandId::phase).
    ///
    /// ```
    /// # use outbox_core::{consumer::{HandlerContext, HandlerError}, saga::CommandPhase};
    /// # struct Room;
    /// # struct Sql;
    /// async fn reserve_or_free(room: Room, cx: &HandlerContext<Sql>) -> Result<(), HandlerError> {
    ///     match cx.command_id().map(|command| command.phase) {
    ///         Some(CommandPhase::Undo) => println!("the room is free again"),
    ///         _ => println!("the room is reserved"),
    ///     }
    /// #   let _ = room;
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub fn command_id(&self) -> Option<&CommandId> {
        self.reply.command.as_ref().map(|command| &command.id)
    }

    /// Replies to a command: the work is done, with this result.
    ///
    /// The reply is sent when the handler has returned `Ok`, in its transaction: on the topic that the saga named in
    /// place of the event's own, keyed by the saga, with the event's type, version, content type, headers and content. It
    /// is stored, and sent again under another id when the saga repeats the command; the handler does not run then. A
    /// handler that returns `Ok` without a reply has done its work too: [`DONE`](crate::saga::DONE), or [`UNDONE`](crate::saga::UNDONE), goes out.
    ///
    /// On a message that is no command the event is emitted as it is, so that a handler serves both.
    ///
    /// ```
    /// # use outbox_core::{consumer::{HandlerContext, HandlerError}, event::{EncodeError, EventMeta, OutboxEvent}};
    /// # struct Charge { order_id: i64, cents: i64 }
    /// # struct Charged { order_id: i64 }
    /// # impl OutboxEvent for Charged {
    /// #     fn meta(&self) -> EventMeta<'_> { EventMeta::new("payment.charged").key(Some(self.order_id.to_string())) }
    /// #     fn payload(&self) -> Result<bytes::Bytes, EncodeError> { Ok(bytes::Bytes::from_static(b"{}")) }
    /// # }
    /// # struct Sql;
    /// async fn charge(command: Charge, cx: &HandlerContext<Sql>) -> Result<(), HandlerError> {
    ///     if command.cents > 100_000 {
    ///         return Ok(cx.reject_with_reason("over the limit")?);
    ///     }
    ///     // .. write the charge through `cx.tx` ..
    ///     cx.reply(Charged { order_id: command.order_id })?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ReplyError::Encode`] for an event that cannot travel, [`ReplyError::AlreadyReplied`] after another reply.
    pub fn reply(&self, event: impl OutboxEvent) -> Result<(), ReplyError> {
        self.reply.fill(false, NewEvent::encode(&event)?)
    }

    /// Rejects a command: the work cannot be done, and nothing was done. The handler's writes and events are rolled
    /// back; it returns `Ok` then.
    ///
    /// The rejection of a command that does a step is final, and stored as a [`reply`](Self::reply) is. The
    /// rejection of a command that undoes a step is not: the handler runs again when the saga repeats the command.
    ///
    /// On a message that is no command the event is emitted as it is, and the handler's writes stay.
    ///
    /// ```
    /// # use outbox_core::{consumer::{HandlerContext, HandlerError}, event::OutboxEvent};
    /// # struct Charge { cents: i64 }
    /// # struct Sql;
    /// # fn declined(_: &str) -> impl OutboxEvent + use<> { Declined }
    /// # struct Declined;
    /// # impl OutboxEvent for Declined {
    /// #     fn meta(&self) -> outbox_core::event::EventMeta<'_> { outbox_core::event::EventMeta::new("payment.declined") }
    /// #     fn payload(&self) -> Result<bytes::Bytes, outbox_core::event::EncodeError> { Ok("{}".into()) }
    /// # }
    /// async fn charge(command: Charge, cx: &HandlerContext<Sql>) -> Result<(), HandlerError> {
    ///     if command.cents > 100_000 {
    ///         cx.reject(declined("over the limit"))?; // what was written is rolled back
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// Those of [`reply`](Self::reply).
    pub fn reject(&self, event: impl OutboxEvent) -> Result<(), ReplyError> {
        self.reply.fill(true, NewEvent::encode(&event)?)
    }

    /// Rejects a command as [`reject`](Self::reject) does, with a reason as text: [`REJECTED`](crate::saga::REJECTED), with
    /// `{"reason": ".."}`.
    ///
    /// ```
    /// # use outbox_core::consumer::{HandlerContext, HandlerError};
    /// # struct Reserve { nights: u32 }
    /// # struct Sql;
    /// async fn reserve(command: Reserve, cx: &HandlerContext<Sql>) -> Result<(), HandlerError> {
    ///     if command.nights > 30 {
    ///         return Ok(cx.reject_with_reason("no more than 30 nights at once")?);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ReplyError::NoCommand`] on a message that is none, [`ReplyError::AlreadyReplied`] after another reply.
    pub fn reject_with_reason(&self, reason: impl AsRef<str>) -> Result<(), ReplyError> {
        self.command_id().ok_or(ReplyError::NoCommand)?;
        self.reply.fill(true, NewEvent::encode(&Rejection(reason.as_ref()))?)
    }
}

/// A reason as the event of a rejection.
struct Rejection<'a>(&'a str);

impl OutboxEvent for Rejection<'_> {
    fn meta(&self) -> EventMeta<'_> {
        EventMeta::new(REJECTED)
    }

    fn payload(&self) -> Result<Bytes, EncodeError> {
        Ok(rejection(self.0).payload)
    }
}

impl From<NewEvent> for StoredReply {
    /// Takes the stored part of a reply.
    fn from(event: NewEvent) -> Self {
        let NewEvent { event_type, event_version, content_type, payload, headers, .. } = event;
        Self { event_type, event_version, content_type, payload, headers }
    }
}
