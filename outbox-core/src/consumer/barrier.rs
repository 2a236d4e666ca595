//! Which commands of sagas are done, and what is answered to the others: pure.
//!
//! A saga repeats a command under a new message id, which the inbox does not know, and what undoes it may come first. So
//! a call has one row for its doing and one for its undoing; whoever undoes also writes the row of the doing, so that one
//! that comes later finds it. Of two transactions, the second waits at that row until the first has ended.
//!
//! A row says which command it is of. Another message with a command's headers has rows apart, so that it takes nothing from the
//! command, whichever comes first. A repeat whose content has changed is the first command still, as its saga says: it is
//! answered where that is known, and is not taken where it is not, since only the first one is sure to be what was meant.

use crate::{
    event::{Headers, Message, MessageId, NewEvent},
    outbox::{CallAnswer, CallOutcome, KnownCall},
    saga::{Call, CommandHash, DONE, Phase, REJECTED, UNDONE, reply_to},
};

/// Longest topic in bytes.
const MAX_TOPIC: usize = 255;

/// What a saga asks a service for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) call: Call,
    reply_to: String,
    /// The one that does the step; `None` where a saga that undoes it does not say which that was.
    pub(super) doing: Option<CommandHash>,
    /// The one that undoes it, where it is that.
    pub(super) undoing: CommandHash,
    /// Whether its content is another one than that of the command that was sent first.
    pub(super) is_changed: bool,
}

/// What is done about a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Course {
    /// The handler runs.
    Run,
    /// It does not; this is answered.
    Answer(CallAnswer),
}

/// What becomes of the row of a command whose handler ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It stays as it was noted before the handler ran.
    AsNoted,
    /// It keeps this outcome, with the answer.
    Keep(CallOutcome),
    /// It goes, so that the command is done again when it is repeated.
    TakeBack,
}

impl Command {
    /// Reads a command from its message; `None` for one that is none: an event, or an answer to a command.
    ///
    /// Says what is wrong with one whose headers are not whole.
    pub(super) fn read(message: &Message) -> Result<Option<Self>, String> {
        let Some(call) = Call::read(&message.headers).map_err(|fault| fault.to_string())? else {
            return Ok(None);
        };
        let Some(topic) = reply_to(&message.headers) else { return Ok(None) };
        if topic.is_empty() || topic.len() > MAX_TOPIC || topic.chars().any(char::is_control) {
            return Err(format!(
                "the topic for the answer to a saga does not have 1 to {MAX_TOPIC} bytes without control characters"
            ));
        }
        let first = CommandHash::read(&message.headers).map_err(|fault| fault.to_string())?;
        let (own, undoing) = (
            CommandHash::of(&message.event_type, &message.payload),
            CommandHash::of_type(&message.event_type),
        );
        let (doing, is_changed) = match call.phase {
            Phase::Do => (first.or(Some(own)), first.is_some_and(|first| first != own)),
            Phase::Undo => (first, false),
        };
        Ok(Some(Self { call, reply_to: topic.to_owned(), doing, undoing, is_changed }))
    }

    /// Gives the topic on which the saga expects its answer.
    pub(super) fn reply_to(&self) -> &str {
        &self.reply_to
    }

    /// Makes the message of an answer: keyed by the saga, so that all it hears has an order.
    pub(super) fn event(&self, consumer: &str, answer: CallAnswer) -> NewEvent {
        let CallAnswer { event_type, event_version, content_type, payload, mut headers } = answer;
        self.call.write_answer(&mut headers, consumer);
        NewEvent {
            message_id: MessageId::generate(),
            event_type,
            event_version,
            topic: self.reply_to.clone(),
            aggregate_type: None,
            key: Some(self.call.saga.to_string()),
            content_type,
            payload,
            headers,
            ttl: None,
            retry: None,
        }
    }
}

/// Says what is done about a command, by what is known of its doing and of its undoing. An undoing has noted by then that
/// the doing is blocked, where nothing was known of it.
pub(crate) fn course(phase: Phase, doing: Option<KnownCall>, undoing: Option<KnownCall>) -> Course {
    match (phase, doing, undoing) {
        (Phase::Do, None, _) => Course::Run,
        (Phase::Do, Some(known), _) | (Phase::Undo, _, Some(known)) => {
            Course::Answer(answered(known))
        }
        (Phase::Undo, Some(KnownCall { outcome: CallOutcome::Done, .. }), None) => Course::Run,
        (Phase::Undo, _, None) => Course::Answer(usual(CallOutcome::Undone)),
    }
}

/// Says what becomes of a command's row when its handler has run, and whether it gave an answer that says no.
pub(super) const fn ending(phase: Phase, says_no: Option<bool>) -> Ending {
    match (phase, says_no) {
        (_, None) => Ending::AsNoted,
        (Phase::Do, Some(false)) => Ending::Keep(CallOutcome::Done),
        (Phase::Do, Some(true)) => Ending::Keep(CallOutcome::Rejected),
        (Phase::Undo, Some(false)) => Ending::Keep(CallOutcome::Undone),
        // What was done is still to be undone.
        (Phase::Undo, Some(true)) => Ending::TakeBack,
    }
}

/// Gives what is noted of a command before its handler runs: what it becomes unless the handler says otherwise.
pub(crate) const fn noted(phase: Phase) -> CallOutcome {
    match phase {
        Phase::Do => CallOutcome::Done,
        Phase::Undo => CallOutcome::Undone,
    }
}

/// Gives the answer to a command of which something is known.
fn answered(known: KnownCall) -> CallAnswer {
    known.answer.unwrap_or_else(|| usual(known.outcome))
}

/// Gives the answer that goes with an outcome.
pub(crate) fn usual(outcome: CallOutcome) -> CallAnswer {
    match outcome {
        CallOutcome::Done => plain(DONE, &serde_json::Value::Null),
        CallOutcome::Undone => plain(UNDONE, &serde_json::Value::Null),
        CallOutcome::Rejected => refused("it was rejected"),
        CallOutcome::Blocked => refused("it was undone before it came"),
    }
}

/// Gives the answer that says no in plain words.
pub(crate) fn refused(reason: &str) -> CallAnswer {
    plain(REJECTED, &serde_json::json!({ "reason": reason }))
}

fn plain(event_type: &str, content: &serde_json::Value) -> CallAnswer {
    CallAnswer {
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
        saga::answered_by,
    };
    use std::num::NonZeroU32;

    fn known(outcome: CallOutcome) -> Option<KnownCall> {
        Some(KnownCall { outcome, answer: None, command: None })
    }

    #[test]
    fn every_command_has_its_course() {
        use CallOutcome::{Blocked, Done, Rejected, Undone};
        let answer = |outcome| Course::Answer(usual(outcome));
        for (phase, doing, undoing, expected) in [
            (Phase::Do, None, None, Course::Run),
            (Phase::Do, Some(Done), None, answer(Done)),
            (Phase::Do, Some(Rejected), None, answer(Rejected)),
            (Phase::Do, Some(Blocked), None, answer(Blocked)),
            (Phase::Do, Some(Done), Some(Undone), answer(Done)),
            (Phase::Undo, None, None, answer(Undone)),
            (Phase::Undo, Some(Done), None, Course::Run),
            (Phase::Undo, Some(Rejected), None, answer(Undone)),
            (Phase::Undo, Some(Blocked), None, answer(Undone)),
            (Phase::Undo, None, Some(Undone), answer(Undone)),
            (Phase::Undo, Some(Done), Some(Undone), answer(Undone)),
            (Phase::Undo, Some(Blocked), Some(Undone), answer(Undone)),
        ] {
            assert_eq!(
                course(phase, doing.and_then(known), undoing.and_then(known)),
                expected,
                "{phase:?} {doing:?} {undoing:?}"
            );
        }
    }

    #[test]
    fn a_kept_answer_is_given_again_as_it_was() {
        let kept = CallAnswer {
            event_type: "payment.charged".into(),
            event_version: 3,
            ..usual(CallOutcome::Done)
        };
        let known =
            |outcome| Some(KnownCall { outcome, answer: Some(kept.clone()), command: None });
        let again = Course::Answer(kept.clone());
        assert_eq!(course(Phase::Do, known(CallOutcome::Rejected), None), again);
        assert_eq!(
            course(Phase::Undo, known(CallOutcome::Done), known(CallOutcome::Undone)),
            again
        );
    }

    #[test]
    fn every_end_of_a_handler_has_its_row() {
        for (phase, says_no, expected) in [
            (Phase::Do, None, Ending::AsNoted),
            (Phase::Do, Some(false), Ending::Keep(CallOutcome::Done)),
            (Phase::Do, Some(true), Ending::Keep(CallOutcome::Rejected)),
            (Phase::Undo, None, Ending::AsNoted),
            (Phase::Undo, Some(false), Ending::Keep(CallOutcome::Undone)),
            (Phase::Undo, Some(true), Ending::TakeBack),
        ] {
            assert_eq!(ending(phase, says_no), expected, "{phase:?} {says_no:?}");
        }
        assert_eq!(
            (noted(Phase::Do), noted(Phase::Undo)),
            (CallOutcome::Done, CallOutcome::Undone)
        );
    }

    #[test]
    fn the_usual_answers_say_what_became_of_the_command() {
        let said = |outcome| {
            let CallAnswer { event_type, payload, .. } = usual(outcome);
            (event_type, String::from_utf8(payload.to_vec()).expect("JSON"))
        };
        assert_eq!(said(CallOutcome::Done), (DONE.to_owned(), "null".to_owned()));
        assert_eq!(said(CallOutcome::Undone), (UNDONE.to_owned(), "null".to_owned()));
        let (event_type, payload) = said(CallOutcome::Blocked);
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
    fn a_command_says_where_its_answer_goes_and_an_answer_is_none() {
        let call = Call {
            saga: SagaId::generate(),
            step: "charge".into(),
            round: NonZeroU32::MIN,
            phase: Phase::Do,
        };
        let headers = |topic| {
            let mut headers = Headers::new();
            call.write_command(&mut headers, topic, None);
            headers
        };
        let command = Command::read(&message(headers(Some("orders.replies"))))
            .expect("whole")
            .expect("a command");
        let mut own = Headers::new();
        own.insert("tenant", "acme").expect("legal");
        let event =
            command.event("payments", CallAnswer { headers: own, ..usual(CallOutcome::Done) });
        assert_eq!(
            (event.topic.as_str(), event.key),
            ("orders.replies", Some(call.saga.to_string()))
        );
        assert_eq!(
            (Call::read(&event.headers), event.headers.get("tenant")),
            (Ok(Some(call.clone())), Some("acme"))
        );
        assert_eq!(
            (reply_to(&event.headers), answered_by(&event.headers)),
            (None, Some("payments"))
        );

        assert!(Command::read(&message(headers(None))).expect("whole").is_none(), "an answer");
        assert!(Command::read(&message(Headers::new())).expect("whole").is_none(), "an event");
        let long = "x".repeat(MAX_TOPIC + 1);
        for topic in ["", "a\nb", &long] {
            let why = Command::read(&message(headers(Some(topic)))).expect_err("no topic");
            assert!(why.contains("1 to 255 bytes"), "{why}");
        }
        let mut torn = headers(Some("orders.replies"));
        torn.keep("sagaround", "0".into());
        assert!(Command::read(&message(torn)).expect_err("not whole").contains("sagaround"));
    }

    #[test]
    fn a_command_is_the_one_that_was_sent_first_and_an_undoing_is_of_that() {
        let hash = |payload: &str| CommandHash::of("payment.charge", payload.as_bytes());
        for (phase, sent, first, expected) in [
            (Phase::Do, "{}", None, (Some(hash("{}")), false)),
            (Phase::Do, "{}", Some("{}"), (Some(hash("{}")), false)),
            (Phase::Do, "{ }", Some("{}"), (Some(hash("{}")), true)),
            (Phase::Undo, "{}", None, (None, false)),
            (Phase::Undo, "7", Some("{}"), (Some(hash("{}")), false)),
        ] {
            let call = Call {
                saga: SagaId::generate(),
                step: "charge".into(),
                round: NonZeroU32::MIN,
                phase,
            };
            let (mut headers, first) = (Headers::new(), first.map(|first| hash(first).to_string()));
            call.write_command(&mut headers, Some("orders.replies"), first.as_deref());
            let mut parts = message(headers).into_parts();
            parts.payload = sent.to_owned().into();
            let command = Command::read(&Message::new(parts)).expect("whole").expect("a command");
            assert_eq!((command.doing, command.is_changed), expected, "{phase:?} {sent} {first:?}");
            assert_eq!(command.undoing, CommandHash::of_type("payment.charge"));
        }
        let mut headers = Headers::new();
        let call = Call {
            saga: SagaId::generate(),
            step: "charge".into(),
            round: NonZeroU32::MIN,
            phase: Phase::Do,
        };
        call.write_command(&mut headers, Some("orders.replies"), Some("7"));
        assert!(Command::read(&message(headers)).expect_err("no hash").contains("sagacommand"));
    }

    #[test]
    fn what_is_known_is_of_one_command_unless_nobody_knows_which() {
        let [one, other] =
            ["{}", "7"].map(|payload| CommandHash::of("payment.charge", payload.as_bytes()));
        let known = |command| KnownCall { outcome: CallOutcome::Done, answer: None, command };
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
