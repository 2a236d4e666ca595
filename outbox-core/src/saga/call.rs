//! What travels between a saga and the service that does one of its steps: headers of a command, and of its answer.

use crate::event::{Headers, SagaId};
use std::{fmt, num::NonZeroU32};
use uuid::Uuid;

const SAGA: &str = "sagaid";
const STEP: &str = "sagastep";
const ROUND: &str = "sagaround";
const PHASE: &str = "sagaphase";
const REPLY_TO: &str = "replyto";
/// Hash of the command that was sent first.
const COMMAND: &str = "sagacommand";
/// Consumer that answers.
const CONSUMER: &str = "sagaconsumer";
/// Longest step name in bytes, as definitions have it.
const MAX_STEP: usize = 100;

/// Type of the answer of a handler that did its work and gave no answer of its own.
pub const DONE: &str = "outbox.saga.done";
/// Type of the answer of a handler that cannot do its work; also of a command that came after its undoing.
pub const REJECTED: &str = "outbox.saga.rejected";
/// Type of the answer of a handler that has undone its work, or had nothing to undo.
pub const UNDONE: &str = "outbox.saga.undone";

/// What a command asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The step.
    Do,
    /// That the step counts for nothing: what was done of it is undone, and what was not is not done any more.
    Undo,
}

impl Phase {
    /// Gives the name that travels and is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Undo => "undo",
        }
    }
}

/// Which command of which saga: the same on every repeat, and on its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    /// The saga.
    pub saga: SagaId,
    /// The step's stable name.
    pub step: String,
    /// How often the step was begun, from 1: an operator may have it done once more.
    pub round: NonZeroU32,
    /// What is asked for.
    pub phase: Phase,
}

/// What a command is told by beside its call: a hash of its type and content. A saga sends that of its first command with each
/// repeat, and with the command that undoes it.
///
/// # Source
/// RFC 9562, version 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommandHash(Uuid);

impl CommandHash {
    /// Makes that of a command to do a step.
    #[must_use]
    pub fn of(event_type: &str, payload: &[u8]) -> Self {
        let mut whole = Vec::with_capacity(event_type.len() + 1 + payload.len());
        // No type holds a line break, so that the two cannot run into each other.
        whole.extend_from_slice(event_type.as_bytes());
        whole.push(b'\n');
        whole.extend_from_slice(payload);
        Self(Uuid::new_v5(&Uuid::NAMESPACE_URL, &whole))
    }

    /// Makes that of a command to undo a step, whose content may be another one each time: what was done may be known by then.
    #[must_use]
    pub fn of_type(event_type: &str) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_URL, event_type.as_bytes()))
    }

    /// Reads one that is stored.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Gives the form that is stored.
    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }

    /// Reads that of the command that was sent first; `None` where the saga does not say.
    pub(crate) fn read(headers: &Headers) -> Result<Option<Self>, CallFault> {
        let read = |text: &str| text.parse().map(Self).map_err(|_| CallFault(COMMAND));
        headers.get(COMMAND).map(read).transpose()
    }
}

impl fmt::Display for CommandHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Headers that speak of a saga and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the header `{0}` of a saga is missing or cannot be read")]
pub struct CallFault(&'static str);

impl Call {
    /// Reads the headers of a command or of an answer; `None` for a message that speaks of no saga.
    ///
    /// # Errors
    /// [`CallFault`] for one that does, and is not whole.
    pub fn read(headers: &Headers) -> Result<Option<Self>, CallFault> {
        let Some(saga) = headers.get(SAGA) else { return Ok(None) };
        let get = |name| headers.get(name).ok_or(CallFault(name));
        let phase = match get(PHASE)? {
            "do" => Phase::Do,
            "undo" => Phase::Undo,
            _ => return Err(CallFault(PHASE)),
        };
        Ok(Some(Self {
            saga: saga.parse().map_err(|_| CallFault(SAGA))?,
            step: get(STEP).ok().filter(|s| !s.is_empty() && s.len() <= MAX_STEP).ok_or(CallFault(STEP))?.to_owned(),
            round: get(ROUND)?.parse().map_err(|_| CallFault(ROUND))?,
            phase,
        }))
    }

    /// Writes the headers of a command, with the topic on which its answer is expected, and the hash of the one that was sent
    /// first.
    pub(crate) fn write_command(&self, headers: &mut Headers, reply_to: Option<&str>, first: Option<&str>) {
        self.write(headers);
        headers.remove(CONSUMER);
        match first {
            Some(hash) => headers.keep(COMMAND, hash.to_owned()),
            None => drop(headers.remove(COMMAND)),
        }
        match reply_to {
            Some(topic) => headers.keep(REPLY_TO, topic.to_owned()),
            None => drop(headers.remove(REPLY_TO)),
        }
    }

    /// Writes the headers of an answer, with the consumer that gives it.
    pub(crate) fn write_answer(&self, headers: &mut Headers, consumer: &str) {
        self.write(headers);
        headers.remove(REPLY_TO);
        headers.remove(COMMAND);
        headers.keep(CONSUMER, consumer.to_owned());
    }

    fn write(&self, headers: &mut Headers) {
        headers.keep(SAGA, self.saga.to_string());
        headers.keep(STEP, self.step.clone());
        headers.keep(ROUND, self.round.to_string());
        headers.keep(PHASE, self.phase.as_str().to_owned());
    }
}

/// Gives the topic on which a command's answer is expected; an answer has none.
#[must_use]
pub fn reply_to(headers: &Headers) -> Option<&str> {
    headers.get(REPLY_TO)
}

/// Gives the consumer that has answered a command, as the answer says.
#[must_use]
pub fn answered_by(headers: &Headers) -> Option<&str> {
    headers.get(CONSUMER)
}

/// Tells whether a message answers a command.
#[must_use]
pub fn is_answer(headers: &Headers) -> bool {
    headers.get(SAGA).is_some() && headers.get(REPLY_TO).is_none()
}

/// Tells whether a message is a command.
#[must_use]
pub(crate) fn is_command(headers: &Headers) -> bool {
    headers.get(SAGA).is_some() && headers.get(REPLY_TO).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_reads_back_and_what_is_not_whole_says_what_is_wrong() {
        let saga = SagaId::generate();
        let call = Call { saga, step: "charge".into(), round: NonZeroU32::MIN, phase: Phase::Undo };
        let mut command = Headers::new();
        call.write_command(&mut command, Some("orders.replies"), Some("x"));
        assert_eq!(Call::read(&command), Ok(Some(call.clone())));
        assert_eq!(reply_to(&command), Some("orders.replies"));
        let mut answer = command.clone();
        call.write_answer(&mut answer, "payments");
        assert_eq!((Call::read(&answer), reply_to(&answer)), (Ok(Some(call.clone())), None));
        assert_eq!((answered_by(&answer), answered_by(&command)), (Some("payments"), None));
        call.write_command(&mut answer, Some("orders.replies"), Some("x"));
        assert_eq!(answer, command, "an event's own header says nothing of who answers");
        assert_eq!(Call::read(&Headers::new()), Ok(None));
        let long = "x".repeat(MAX_STEP + 1);
        for (name, value) in [(SAGA, "7"), (STEP, ""), (STEP, &long), (ROUND, "0"), (ROUND, "one"), (PHASE, "redo")] {
            let mut broken = command.clone();
            broken.insert(name, value).unwrap();
            assert_eq!(Call::read(&broken), Err(CallFault(name)), "{value}");
        }
        for name in [STEP, ROUND, PHASE] {
            let mut broken = command.clone();
            broken.remove(name);
            assert_eq!(Call::read(&broken), Err(CallFault(name)));
        }
    }

    #[test]
    fn a_command_is_told_by_its_type_and_content_and_by_nothing_that_runs_into_the_other() {
        let of = CommandHash::of;
        assert_eq!(of("payment.charge", b"{}"), of("payment.charge", b"{}"));
        let different = [of("payment.charge", b"{}"), of("payment.charge", b"{} "), of("payment.refund", b"{}")];
        let different =
            [&different[..], &[of("payment.charge{}", b""), CommandHash::of_type("payment.charge")]].concat();
        for (n, hash) in different.iter().enumerate() {
            assert!(!different[n + 1..].contains(hash), "{n}");
        }
        let mut headers = Headers::new();
        assert_eq!(CommandHash::read(&headers), Ok(None));
        for (text, expected) in
            [(different[0].to_string(), Ok(Some(different[0]))), ("7".into(), Err(CallFault(COMMAND)))]
        {
            headers.insert(COMMAND, text).unwrap();
            assert_eq!(CommandHash::read(&headers), expected);
        }
    }
}
