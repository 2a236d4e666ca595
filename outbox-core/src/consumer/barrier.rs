//! Which commands of sagas run, and which reply the others get: pure.
//!
//! A saga repeats a command under a new message id, which the inbox does not know, and the command
//! that undoes it may arrive first. So the barrier has one row for the command that does a step and
//! one for the command that undoes it. The undoing command also writes the row of the doing one, so
//! that a doing command which arrives later is blocked. Of two transactions, the second waits at that
//! row until the first has ended.
//!
//! A row holds the hash of its command. Another message with a command's headers has rows of its own,
//! so that it blocks no command, whichever arrives first. A repeat whose content has changed counts as
//! the first command: it gets the recorded reply where there is one, and is rejected where there is
//! none, since only the first content is sure to be what the saga meant.
//!
//! # Source
//! The barrier of DTM (<https://en.dtm.pub/practice/barrier.html>): rows that a second transaction
//! meets, for a repeated command, an undoing without a doing, and a doing after its undoing.

use crate::{
    event::{Headers, Message, MessageId, NewEvent, SENSITIVE, TextRule},
    outbox::{CommandOutcome, RecordedCommand, StoredReply},
    saga::{CommandHash, CommandId, CommandPhase, DONE, REJECTED, UNDONE, reply_to},
};

/// A command of a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) id: CommandId,
    reply_to: String,
    /// Hash of the command that does the step; `None` where the saga undoes it and does not say which
    /// command that was.
    pub(super) doing: Option<CommandHash>,
    /// Hash of the command that undoes the step, where this is that command.
    pub(super) undoing: CommandHash,
    /// Whether its content differs from that of the command which the saga sent first.
    pub(super) is_changed: bool,
    /// Whether its message is sensitive: then the reply is too, which may quote it.
    is_sensitive: bool,
}

/// What the consumer does about a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommandAction {
    /// It runs the handler.
    Run,
    /// It sends this reply, without the handler.
    Reply(StoredReply),
}

/// What the consumer does to the row of a command whose handler ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowUpdate {
    /// It keeps the row as it was recorded before the handler ran.
    Keep,
    /// It stores this outcome, with the reply.
    Store(CommandOutcome),
    /// It removes the row, so that the handler runs again when the saga repeats the command.
    Remove,
}

impl Command {
    /// Reads a command from its message; `None` for an event and for a reply to a command.
    ///
    /// Says what is wrong with incomplete headers.
    pub(super) fn read(message: &Message) -> Result<Option<Self>, String> {
        let Some(id) = CommandId::read(&message.headers).map_err(|fault| fault.to_string())? else {
            return Ok(None);
        };
        let Some(topic) = reply_to(&message.headers) else { return Ok(None) };
        if !TextRule::ATTRIBUTE.allows(topic) {
            return Err(format!(
                "the topic for the reply to a saga does not have {}",
                TextRule::ATTRIBUTE
            ));
        }
        let first = CommandHash::read(&message.headers).map_err(|fault| fault.to_string())?;
        let (own, undoing) = (
            CommandHash::of(&message.event_type, &message.payload),
            CommandHash::of_type(&message.event_type),
        );
        let (doing, is_changed) = match id.phase {
            CommandPhase::Do => (first.or(Some(own)), first.is_some_and(|first| first != own)),
            CommandPhase::Undo => (first, false),
        };
        let (reply_to, is_sensitive) = (topic.to_owned(), message.is_sensitive());
        Ok(Some(Self { id, reply_to, doing, undoing, is_changed, is_sensitive }))
    }

    /// Gives the topic on which the saga expects the reply.
    pub(super) fn reply_to(&self) -> &str {
        &self.reply_to
    }

    /// Makes the event of a reply: keyed by the saga, so that the saga receives its replies in order.
    pub(super) fn reply_event(&self, consumer: &str, reply: StoredReply) -> NewEvent {
        let StoredReply { event_type, event_version, content_type, payload, mut headers } = reply;
        self.id.write_reply(&mut headers, consumer);
        if self.is_sensitive {
            headers.keep(SENSITIVE, "true".to_owned());
        }
        NewEvent {
            message_id: MessageId::generate(),
            event_type,
            event_version,
            topic: self.reply_to.clone(),
            aggregate_type: None,
            key: Some(self.id.saga.to_string()),
            content_type,
            payload,
            headers,
            ttl: None,
            retry: None,
        }
    }
}

/// Says what the consumer does about a command, by the recorded commands that do and undo the step. An
/// undoing command has recorded by then that the doing one is blocked, where that was not recorded.
pub(crate) fn decide(
    phase: CommandPhase,
    doing: Option<RecordedCommand>,
    undoing: Option<RecordedCommand>,
) -> CommandAction {
    match (phase, doing, undoing) {
        (CommandPhase::Do, None, _) => CommandAction::Run,
        (CommandPhase::Do, Some(known), _) | (CommandPhase::Undo, _, Some(known)) => {
            CommandAction::Reply(recorded_reply(known))
        }
        (CommandPhase::Undo, Some(RecordedCommand { outcome: CommandOutcome::Done, .. }), None) => {
            CommandAction::Run
        }
        (CommandPhase::Undo, _, None) => {
            CommandAction::Reply(default_reply(CommandOutcome::Undone))
        }
    }
}

/// Says what the consumer does to a command's row when its handler has run. `is_rejection` tells
/// whether the handler's reply is a rejection; `None` where it gave no reply.
pub(super) const fn row_update(phase: CommandPhase, is_rejection: Option<bool>) -> RowUpdate {
    match (phase, is_rejection) {
        (_, None) => RowUpdate::Keep,
        (CommandPhase::Do, Some(false)) => RowUpdate::Store(CommandOutcome::Done),
        (CommandPhase::Do, Some(true)) => RowUpdate::Store(CommandOutcome::Rejected),
        (CommandPhase::Undo, Some(false)) => RowUpdate::Store(CommandOutcome::Undone),
        // The step still has to be undone.
        (CommandPhase::Undo, Some(true)) => RowUpdate::Remove,
    }
}

/// Gives the outcome that the consumer records before the handler runs; it stays unless the handler's
/// reply says otherwise.
pub(crate) const fn provisional_outcome(phase: CommandPhase) -> CommandOutcome {
    match phase {
        CommandPhase::Do => CommandOutcome::Done,
        CommandPhase::Undo => CommandOutcome::Undone,
    }
}

/// Gives the reply to a command that is recorded.
fn recorded_reply(known: RecordedCommand) -> StoredReply {
    known.reply.unwrap_or_else(|| default_reply(known.outcome))
}

/// Gives the reply that goes with an outcome.
pub(crate) fn default_reply(outcome: CommandOutcome) -> StoredReply {
    match outcome {
        CommandOutcome::Done => standard_reply(DONE, &serde_json::Value::Null),
        CommandOutcome::Undone => standard_reply(UNDONE, &serde_json::Value::Null),
        CommandOutcome::Rejected => rejection("it was rejected"),
        CommandOutcome::Blocked => rejection("it was undone before it came"),
    }
}

/// Gives the reply that rejects a command, with a reason.
pub(crate) fn rejection(reason: &str) -> StoredReply {
    standard_reply(REJECTED, &serde_json::json!({ "reason": reason }))
}

fn standard_reply(event_type: &str, content: &serde_json::Value) -> StoredReply {
    StoredReply {
        event_type: event_type.to_owned(),
        event_version: 1,
        content_type: "application/json".to_owned(),
        payload: content.to_string().into(),
        headers: Headers::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{MessageParts, SagaId, Timestamp},
        saga::replied_by,
    };
    use std::num::NonZeroU32;

    fn known(outcome: CommandOutcome) -> Option<RecordedCommand> {
        Some(RecordedCommand { outcome, reply: None, command: None })
    }

    #[test]
    fn every_command_has_its_action() {
        use CommandOutcome::{Blocked, Done, Rejected, Undone};
        let answer = |outcome| CommandAction::Reply(default_reply(outcome));
        for (phase, doing, undoing, expected) in [
            (CommandPhase::Do, None, None, CommandAction::Run),
            (CommandPhase::Do, Some(Done), None, answer(Done)),
            (CommandPhase::Do, Some(Rejected), None, answer(Rejected)),
            (CommandPhase::Do, Some(Blocked), None, answer(Blocked)),
            (CommandPhase::Do, Some(Done), Some(Undone), answer(Done)),
            (CommandPhase::Undo, None, None, answer(Undone)),
            (CommandPhase::Undo, Some(Done), None, CommandAction::Run),
            (CommandPhase::Undo, Some(Rejected), None, answer(Undone)),
            (CommandPhase::Undo, Some(Blocked), None, answer(Undone)),
            (CommandPhase::Undo, None, Some(Undone), answer(Undone)),
            (CommandPhase::Undo, Some(Done), Some(Undone), answer(Undone)),
            (CommandPhase::Undo, Some(Blocked), Some(Undone), answer(Undone)),
        ] {
            assert_eq!(
                decide(phase, doing.and_then(known), undoing.and_then(known)),
                expected,
                "{phase:?} {doing:?} {undoing:?}"
            );
        }
    }

    #[test]
    fn a_stored_reply_is_sent_again_unchanged() {
        let kept = StoredReply {
            event_type: "payment.charged".into(),
            event_version: 3,
            ..default_reply(CommandOutcome::Done)
        };
        let known =
            |outcome| Some(RecordedCommand { outcome, reply: Some(kept.clone()), command: None });
        let again = CommandAction::Reply(kept.clone());
        assert_eq!(decide(CommandPhase::Do, known(CommandOutcome::Rejected), None), again);
        assert_eq!(
            decide(CommandPhase::Undo, known(CommandOutcome::Done), known(CommandOutcome::Undone)),
            again
        );
    }

    #[test]
    fn every_reply_of_a_handler_has_its_row_update() {
        for (phase, is_rejection, expected) in [
            (CommandPhase::Do, None, RowUpdate::Keep),
            (CommandPhase::Do, Some(false), RowUpdate::Store(CommandOutcome::Done)),
            (CommandPhase::Do, Some(true), RowUpdate::Store(CommandOutcome::Rejected)),
            (CommandPhase::Undo, None, RowUpdate::Keep),
            (CommandPhase::Undo, Some(false), RowUpdate::Store(CommandOutcome::Undone)),
            (CommandPhase::Undo, Some(true), RowUpdate::Remove),
        ] {
            assert_eq!(row_update(phase, is_rejection), expected, "{phase:?} {is_rejection:?}");
        }
        assert_eq!(
            (provisional_outcome(CommandPhase::Do), provisional_outcome(CommandPhase::Undo)),
            (CommandOutcome::Done, CommandOutcome::Undone)
        );
    }

    #[test]
    fn the_default_replies_say_what_became_of_the_command() {
        let said = |outcome| {
            let StoredReply { event_type, payload, .. } = default_reply(outcome);
            (event_type, String::from_utf8(payload.to_vec()).expect("JSON"))
        };
        assert_eq!(said(CommandOutcome::Done), (DONE.to_owned(), "null".to_owned()));
        assert_eq!(said(CommandOutcome::Undone), (UNDONE.to_owned(), "null".to_owned()));
        let (event_type, payload) = said(CommandOutcome::Blocked);
        assert_eq!(
            (event_type.as_str(), &*payload),
            (REJECTED, r#"{"reason":"it was undone before it came"}"#)
        );
    }

    fn message(headers: Headers) -> Message {
        Message::new(MessageParts {
            id: MessageId::generate(),
            sequence: None,
            source: "/orders".into(),
            event_type: "payment.charge".into(),
            event_version: 1,
            topic: "payments".into(),
            aggregate_type: None,
            key: None,
            content_type: "application/json".into(),
            payload: "{}".into(),
            headers,
            created_at: Timestamp::from_micros(0),
            expires_at: None,
            retry: None,
        })
    }

    #[test]
    fn a_command_names_the_topic_of_its_reply_and_a_reply_is_no_command() {
        let id = CommandId {
            saga: SagaId::generate(),
            step: "charge".into(),
            round: NonZeroU32::MIN,
            phase: CommandPhase::Do,
        };
        let headers = |topic| {
            let mut headers = Headers::new();
            id.write_command(&mut headers, topic, None);
            headers
        };
        let command = Command::read(&message(headers(Some("orders.replies"))))
            .expect("whole")
            .expect("a command");
        let mut own = Headers::new();
        own.insert("tenant", "acme").expect("legal");
        let event = command.reply_event(
            "payments",
            StoredReply { headers: own, ..default_reply(CommandOutcome::Done) },
        );
        assert_eq!(
            (event.topic.as_str(), event.key),
            ("orders.replies", Some(id.saga.to_string()))
        );
        assert_eq!(
            (CommandId::read(&event.headers), event.headers.get("tenant")),
            (Ok(Some(id.clone())), Some("acme"))
        );
        assert_eq!(
            (reply_to(&event.headers), replied_by(&event.headers)),
            (None, Some("payments"))
        );

        assert!(Command::read(&message(headers(None))).expect("whole").is_none(), "an answer");
        assert!(Command::read(&message(Headers::new())).expect("whole").is_none(), "an event");
        let long = "x".repeat(256);
        for topic in ["", "a\nb", &long] {
            let why = Command::read(&message(headers(Some(topic)))).expect_err("no topic");
            assert!(why.contains("1 to 255 bytes"), "{why}");
        }
        let mut torn = headers(Some("orders.replies"));
        torn.keep("sagaround", "0".into());
        assert!(Command::read(&message(torn)).expect_err("not whole").contains("sagaround"));
    }

    #[test]
    fn a_repeated_command_counts_as_the_first_and_an_undoing_belongs_to_that() {
        let hash = |payload: &str| CommandHash::of("payment.charge", payload.as_bytes());
        for (phase, sent, first, expected) in [
            (CommandPhase::Do, "{}", None, (Some(hash("{}")), false)),
            (CommandPhase::Do, "{}", Some("{}"), (Some(hash("{}")), false)),
            (CommandPhase::Do, "{ }", Some("{}"), (Some(hash("{}")), true)),
            (CommandPhase::Undo, "{}", None, (None, false)),
            (CommandPhase::Undo, "7", Some("{}"), (Some(hash("{}")), false)),
        ] {
            let id = CommandId {
                saga: SagaId::generate(),
                step: "charge".into(),
                round: NonZeroU32::MIN,
                phase,
            };
            let (mut headers, first) = (Headers::new(), first.map(|first| hash(first).to_string()));
            id.write_command(&mut headers, Some("orders.replies"), first.as_deref());
            let mut parts = message(headers).into_parts();
            parts.payload = sent.to_owned().into();
            let command = Command::read(&Message::new(parts)).expect("whole").expect("a command");
            assert_eq!((command.doing, command.is_changed), expected, "{phase:?} {sent} {first:?}");
            assert_eq!(command.undoing, CommandHash::of_type("payment.charge"));
        }
        let mut headers = Headers::new();
        let id = CommandId {
            saga: SagaId::generate(),
            step: "charge".into(),
            round: NonZeroU32::MIN,
            phase: CommandPhase::Do,
        };
        id.write_command(&mut headers, Some("orders.replies"), Some("7"));
        assert!(Command::read(&message(headers)).expect_err("no hash").contains("sagacommand"));
    }

    #[test]
    fn the_reply_to_a_sensitive_command_is_sensitive() {
        let id = CommandId {
            saga: SagaId::generate(),
            step: "charge".into(),
            round: NonZeroU32::MIN,
            phase: CommandPhase::Do,
        };
        for (mark, expected) in [(None, None), (Some("false"), None), (Some("true"), Some("true"))]
        {
            let mut headers = Headers::new();
            id.write_command(&mut headers, Some("orders.replies"), None);
            if let Some(mark) = mark {
                headers.insert(SENSITIVE, mark).expect("it is legal");
            }
            let command = Command::read(&message(headers)).expect("whole").expect("a command");
            let reply = command.reply_event("billing", rejection("no"));
            assert_eq!(reply.headers.get(SENSITIVE), expected, "{mark:?}");
        }
    }

    #[test]
    fn a_recorded_command_is_of_one_hash_unless_it_has_none() {
        let [one, other] =
            ["{}", "7"].map(|payload| CommandHash::of("payment.charge", payload.as_bytes()));
        let known =
            |command| RecordedCommand { outcome: CommandOutcome::Done, reply: None, command };
        for (row, command, expected) in [
            (Some(one), Some(one), true),
            (Some(one), Some(other), false),
            (None, Some(one), true),
            (Some(one), None, true),
            (None, None, true),
        ] {
            assert_eq!(known(row).is_of(command.as_ref()), expected, "{row:?} {command:?}");
        }
    }
}
