//! The headers of a command that a saga sends to the participant of a remote step, and of the
//! reply.

use super::{Headers, SagaId};
use std::{fmt, num::NonZeroU32};
use uuid::Uuid;

const SAGA: &str = "sagaid";
const STEP: &str = "sagastep";
const ROUND: &str = "sagaround";
const PHASE: &str = "sagaphase";
const REPLY_TO: &str = "replyto";
/// Hash of the step's first command.
const COMMAND: &str = "sagacommand";
/// The consumer that replies.
const CONSUMER: &str = "sagaconsumer";
/// Longest step name in bytes, as definitions have it.
const MAX_STEP: usize = 100;

/// Type of the reply for a handler that did the step and gave no reply of its own.
pub const DONE: &str = "outbox.saga.done";
/// Type of the reply of a handler that rejects the command; also to a command that came after the
/// one that undoes it.
pub const REJECTED: &str = "outbox.saga.rejected";
/// Type of the reply of a handler that has undone the step, or had nothing to undo.
pub const UNDONE: &str = "outbox.saga.undone";

/// What a command tells the participant to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandPhase {
    /// To do the step.
    Do,
    /// To undo the step where it is done, and never to do it where it is not.
    Undo,
}

impl CommandPhase {
    /// Gives the name in headers and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Undo => "undo",
        }
    }
}

/// Identifies a command of a saga: its repeats and its reply carry the same headers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CommandId {
    /// The saga.
    pub saga: SagaId,
    /// The step's stable name.
    pub step: String,
    /// The round of the step, from 1: an operator's retry may begin another one.
    pub round: NonZeroU32,
    /// Whether the participant does or undoes the step.
    pub phase: CommandPhase,
}

/// Hash of a command's type and content, which tells it from another command under the same
/// [`CommandId`]. A saga sends the hash of a step's first command with each repeat, and with the
/// command that undoes the step.
///
/// # Source
/// RFC 9562, version 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommandHash(Uuid);

impl CommandHash {
    /// Hashes a command that does a step.
    #[must_use]
    pub fn of(event_type: &str, payload: &[u8]) -> Self {
        let mut whole = Vec::with_capacity(event_type.len() + 1 + payload.len());
        // No type holds a line break, so that the two cannot run into each other.
        whole.extend_from_slice(event_type.as_bytes());
        whole.push(b'\n');
        whole.extend_from_slice(payload);
        Self(Uuid::new_v5(&Uuid::NAMESPACE_URL, &whole))
    }

    /// Hashes a command that undoes a step, by its type alone: its content changes once the step's
    /// output is known.
    #[must_use]
    pub fn of_type(event_type: &str) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_URL, event_type.as_bytes()))
    }

    /// Makes one of its stored form.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Gives its stored form.
    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }

    /// Reads the hash of the step's first command; `None` where the headers have none.
    pub(crate) fn read(headers: &Headers) -> Result<Option<Self>, CommandHeadersError> {
        let read = |text: &str| text.parse().map(Self).map_err(|_| CommandHeadersError(COMMAND));
        headers.get(COMMAND).map(read).transpose()
    }
}

impl fmt::Display for CommandHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A header of a saga's command or reply that is missing or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the header `{0}` of a saga is missing or cannot be read")]
pub struct CommandHeadersError(&'static str);

impl CommandId {
    /// Reads the headers of a command or of a reply; `None` for a message that belongs to no saga.
    ///
    /// # Errors
    /// [`CommandHeadersError`] for a message of a saga whose headers are incomplete or cannot be
    /// read.
    pub fn read(headers: &Headers) -> Result<Option<Self>, CommandHeadersError> {
        let Some(saga) = headers.get(SAGA) else { return Ok(None) };
        let get = |name| headers.get(name).ok_or(CommandHeadersError(name));
        let phase = match get(PHASE)? {
            "do" => CommandPhase::Do,
            "undo" => CommandPhase::Undo,
            _ => return Err(CommandHeadersError(PHASE)),
        };
        Ok(Some(Self {
            saga: saga.parse().map_err(|_| CommandHeadersError(SAGA))?,
            step: get(STEP)
                .ok()
                .filter(|s| !s.is_empty() && s.len() <= MAX_STEP)
                .ok_or(CommandHeadersError(STEP))?
                .to_owned(),
            round: get(ROUND)?.parse().map_err(|_| CommandHeadersError(ROUND))?,
            phase,
        }))
    }

    /// Writes the headers of a command, with the topic for its reply and the hash of the step's
    /// first command.
    pub(crate) fn write_command(
        &self,
        headers: &mut Headers,
        reply_to: Option<&str>,
        first_hash: Option<&str>,
    ) {
        self.write(headers);
        headers.remove(CONSUMER);
        match first_hash {
            Some(hash) => headers.keep(COMMAND, hash.to_owned()),
            None => drop(headers.remove(COMMAND)),
        }
        match reply_to {
            Some(topic) => headers.keep(REPLY_TO, topic.to_owned()),
            None => drop(headers.remove(REPLY_TO)),
        }
    }

    /// Writes the headers of a reply, with the consumer that gives it.
    pub(crate) fn write_reply(&self, headers: &mut Headers, consumer: &str) {
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

/// Gives the part of the stored form of headers ([`Headers::to_json`]) that those of a saga's commands
/// and replies have, and no others.
#[must_use]
pub fn saga_in_json(saga: SagaId) -> String {
    format!("\"{SAGA}\":\"{saga}\"")
}

/// Gives the topic for a command's reply; a reply has none.
#[must_use]
pub fn reply_to(headers: &Headers) -> Option<&str> {
    headers.get(REPLY_TO)
}

/// Gives the consumer that has replied to a command, as the reply's header says.
#[must_use]
pub fn replied_by(headers: &Headers) -> Option<&str> {
    headers.get(CONSUMER)
}

/// Tells whether a message is the reply to a command.
#[must_use]
pub fn is_reply(headers: &Headers) -> bool {
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
    fn a_command_id_reads_back_and_incomplete_headers_name_the_header() {
        let saga = SagaId::generate();
        let id = CommandId {
            saga,
            step: "charge".into(),
            round: NonZeroU32::MIN,
            phase: CommandPhase::Undo,
        };
        let mut command = Headers::new();
        id.write_command(&mut command, Some("orders.replies"), Some("x"));
        assert_eq!(CommandId::read(&command), Ok(Some(id.clone())));
        assert_eq!(reply_to(&command), Some("orders.replies"));
        assert!(command.to_json().contains(&saga_in_json(saga)), "{}", command.to_json());
        assert!(!command.to_json().contains(&saga_in_json(SagaId::generate())));
        let mut reply = command.clone();
        id.write_reply(&mut reply, "payments");
        assert_eq!((CommandId::read(&reply), reply_to(&reply)), (Ok(Some(id.clone())), None));
        assert_eq!((replied_by(&reply), replied_by(&command)), (Some("payments"), None));
        id.write_command(&mut reply, Some("orders.replies"), Some("x"));
        assert_eq!(reply, command, "the consumer's name is no header of a command");
        assert_eq!(CommandId::read(&Headers::new()), Ok(None));
        let long = "x".repeat(MAX_STEP + 1);
        for (name, value) in
            [(SAGA, "7"), (STEP, ""), (STEP, &long), (ROUND, "0"), (ROUND, "one"), (PHASE, "redo")]
        {
            let mut broken = command.clone();
            broken.insert(name, value).unwrap();
            assert_eq!(CommandId::read(&broken), Err(CommandHeadersError(name)), "{value}");
        }
        for name in [STEP, ROUND, PHASE] {
            let mut broken = command.clone();
            broken.remove(name);
            assert_eq!(CommandId::read(&broken), Err(CommandHeadersError(name)));
        }
    }

    #[test]
    fn the_hash_of_a_command_differs_by_its_type_and_by_its_content() {
        let of = CommandHash::of;
        assert_eq!(of("payment.charge", b"{}"), of("payment.charge", b"{}"));
        let different = [
            of("payment.charge", b"{}"),
            of("payment.charge", b"{} "),
            of("payment.refund", b"{}"),
        ];
        let different = [
            &different[..],
            &[of("payment.charge{}", b""), CommandHash::of_type("payment.charge")],
        ]
        .concat();
        for (n, hash) in different.iter().enumerate() {
            assert!(!different[n + 1..].contains(hash), "{n}");
        }
        let mut headers = Headers::new();
        assert_eq!(CommandHash::read(&headers), Ok(None));
        for (text, expected) in [
            (different[0].to_string(), Ok(Some(different[0]))),
            ("7".into(), Err(CommandHeadersError(COMMAND))),
        ] {
            headers.insert(COMMAND, text).unwrap();
            assert_eq!(CommandHash::read(&headers), expected);
        }
    }
}
