//! What a handler answers to a command of a saga.

use super::HandlerContext;
use crate::{
    consumer::barrier::{Command, refused},
    event::{EncodeError, EventMeta, NewEvent, OutboxEvent},
    outbox::CallAnswer,
    saga::{Call, REJECTED},
};
use bytes::Bytes;
use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

/// An answer that was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The event has no encoding, or its envelope breaks a rule.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The handler has answered already.
    #[error("the handler has answered already: a message has one answer")]
    Answered,
    /// There is nobody to be told in plain words.
    #[error(
        "the message is no command of a saga, or the handler was added with `on` and not with `on_command`, so that nobody is told \
         a reason: emit an event with `reject`, or make the message a dead letter with `HandlerError::reject`"
    )]
    NoCommand,
}

/// What a handler said, to be sent when it has returned `Ok`.
#[derive(Clone)]
pub(in crate::consumer) struct Given {
    /// Whether it says that the work cannot be done, and was not.
    pub(in crate::consumer) says_no: bool,
    pub(in crate::consumer) event: NewEvent,
}

/// The command that a handler runs for, and what it said.
#[derive(Default)]
pub(super) struct Answers {
    command: Option<Command>,
    given: Mutex<Option<Given>>,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers")
            .field("call", &self.command.as_ref().map(|c| &c.call))
            .finish_non_exhaustive()
    }
}

impl Answers {
    pub(super) fn to(command: Option<Command>) -> Self {
        Self { command, given: Mutex::default() }
    }

    fn give(&self, says_no: bool, event: NewEvent) -> Result<(), ReplyError> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.is_some() {
            return Err(ReplyError::Answered);
        }
        *given = Some(Given { says_no, event });
        Ok(())
    }

    pub(super) fn into_given(self) -> Option<Given> {
        self.given.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Tx> HandlerContext<Tx> {
    /// Gives the call of a saga whose command the message is; `None` for any other message, an answer among them, and for a
    /// handler that was not added with [`on_command`](crate::consumer::Consumer::on_command).
    ///
    /// A handler that is undone by another one, or told to undo, tells the two apart by
    /// [`phase`](crate::saga::Call::phase) where one takes both.
    #[must_use]
    pub fn call(&self) -> Option<&Call> {
        self.answers.command.as_ref().map(|command| &command.call)
    }

    /// Answers a command: the work is done, and this is what came of it.
    ///
    /// The answer is sent when the handler has returned `Ok`, in its transaction: on the topic that the saga named in
    /// place of the event's own, keyed by the saga, with the event's type, version, content type, headers and content. It
    /// is kept, and sent again under another id when the saga repeats the command; the handler does not run then. A handler
    /// that gives no answer has done its work too: [`DONE`](crate::saga::DONE), or [`UNDONE`](crate::saga::UNDONE), goes out.
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
    ///         return Ok(cx.refuse("over the limit")?);
    ///     }
    ///     // .. write the charge through `cx.tx` ..
    ///     cx.reply(Charged { order_id: command.order_id })?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ReplyError::Encode`] for an event that cannot travel, [`ReplyError::Answered`] after another answer.
    pub fn reply(&self, event: impl OutboxEvent) -> Result<(), ReplyError> {
        self.answers.give(false, NewEvent::encode(&event)?)
    }

    /// Answers a command: the work cannot be done, and nothing was done. What the handler has written is rolled back, and
    /// what it emitted is gone with it; it returns `Ok` then.
    ///
    /// The answer to a command to do something is final, and kept as that of [`reply`](Self::reply) is. One to a command to
    /// undo something is not: the handler runs again when the saga repeats the command.
    ///
    /// On a message that is no command the event is emitted as it is, and what was written stays.
    ///
    /// # Errors
    /// Those of [`reply`](Self::reply).
    pub fn reject(&self, event: impl OutboxEvent) -> Result<(), ReplyError> {
        self.answers.give(true, NewEvent::encode(&event)?)
    }

    /// Answers a command as [`reject`](Self::reject) does, in plain words: [`REJECTED`](crate::saga::REJECTED), with
    /// `{"reason": ".."}`.
    ///
    /// # Errors
    /// [`ReplyError::NoCommand`] on a message that is none, [`ReplyError::Answered`] after another answer.
    pub fn refuse(&self, reason: impl AsRef<str>) -> Result<(), ReplyError> {
        self.call().ok_or(ReplyError::NoCommand)?;
        self.answers.give(true, NewEvent::encode(&Refusal(reason.as_ref()))?)
    }
}

/// A reason as an event.
struct Refusal<'a>(&'a str);

impl OutboxEvent for Refusal<'_> {
    fn meta(&self) -> EventMeta<'_> {
        EventMeta::new(REJECTED)
    }

    fn payload(&self) -> Result<Bytes, EncodeError> {
        Ok(refused(self.0).payload)
    }
}

impl From<NewEvent> for CallAnswer {
    /// Takes what is kept of an answer.
    fn from(event: NewEvent) -> Self {
        let NewEvent { event_type, event_version, content_type, payload, headers, .. } = event;
        Self { event_type, event_version, content_type, payload, headers }
    }
}
