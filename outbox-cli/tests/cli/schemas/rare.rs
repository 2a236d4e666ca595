//! Documents of what no short story has: a saga whose participant rejects, is silent or answers too
//! late, whose steps wait for a lock or have ended their process; a message with all attributes, and
//! one whose content is no text. They are made of the library's own types, as the program writes
//! them.

use outbox_core::{
    admin::{Answer, ExplainedSubject, Explanation, SagaHistory, Subject},
    event::{EventId, LetterId, Message, MessageParts, SagaId, Timestamp},
    failure::{DeadLetter, DeadReason},
    saga::{
        BlockedOn, CommandState, Instance, Json, LogEntry, Operator, Record, SagaState, SagaView,
        StepProgress, StepState,
    },
    testing::transport::full,
};
use serde::Serialize;
use serde_json::Value;
use std::num::NonZeroU32;

/// An instant, in microseconds since 1970-01-01 UTC.
const AT_US: i64 = 1_700_000_000_123_456;

/// Gives the documents, each with the command that writes it.
pub(super) fn documents() -> [(&'static str, Value); 3] {
    [
        ("sagas show", answers(&[saga()])),
        ("dead-letters show", answers(&letters())),
        ("explain", answers(&[of_another_database()])),
    ]
}

fn answers(result: &(impl Serialize + ?Sized)) -> Value {
    serde_json::to_value([Answer { database: "orders", result }]).unwrap()
}

/// An explanation that ends in the database of a participant.
fn of_another_database() -> ExplainedSubject {
    let explanation = Explanation {
        sentence: "its command `payment.take` is a dead letter at billing".to_owned(),
        facts: vec![("letter".to_owned(), "7".to_owned())],
        commands: vec!["outbox dead-letters redrive 7".to_owned()],
        database: Some("billing".to_owned()),
    };
    ExplainedSubject { subject: Subject::Key("order-7".to_owned()), explanation }
}

fn letters() -> Vec<DeadLetter> {
    let parts = full().into_parts();
    let bytes = MessageParts {
        content_type: "application/octet-stream".to_owned(),
        payload: vec![0xff_u8].into(),
        ..parts.clone()
    };
    let letter = |message| {
        let (id, at) = (LetterId(7), Timestamp::from_micros(AT_US));
        let (route, reason) = (String::new(), DeadReason::Unroutable);
        DeadLetter::new(id, EventId(9), message, route, reason, 0, vec![], false, at, None, None)
    };
    let messages = [Some(Message::new(parts)), Some(Message::new(bytes)), None];
    messages.into_iter().map(letter).collect()
}

fn saga() -> SagaHistory {
    let at = Timestamp::from_micros(AT_US);
    let command = CommandState {
        round: NonZeroU32::MIN,
        sends: 2,
        reply_due_us: AT_US,
        hash: Some("5d41402a".to_owned()),
        unsent: true,
        undo_sent: true,
        rejection: Some("no seat is left".to_owned()),
        late_reply: Some("seat.booked".to_owned()),
    };
    let blocked_on =
        BlockedOn { entity: "seat-7".to_owned(), holder: text_of_saga(), since_us: AT_US };
    let step = StepProgress {
        step: "book".to_owned(),
        state: StepState::CompensationFailing,
        output: Some(json("7")),
        failures: 1,
        failing_us: 1,
        retry_at_us: AT_US,
        unfinished_attempts: 1,
        pivot: false,
        compensates: true,
        command: Some(command),
        blocked_on: Some(blocked_on),
    };
    let instance = Instance {
        state: SagaState::Compensating,
        backward: true,
        steps: vec![step],
        forward_only: false,
        reason: Some("over the limit".to_owned()),
        stuck_at: None,
        locks: vec!["seat-7".to_owned()],
    };
    let entry = |(seq, record)| LogEntry { seq, record, at };
    SagaHistory {
        saga: SagaView {
            id: SagaId::generate(),
            definition: ("trip".into(), 1),
            correlation: "trip-1".to_owned(),
            instance,
            started_at: at,
            changed_at: at,
        },
        log: (1..).zip(forward().into_iter().chain(backward())).map(entry).collect(),
    }
}

fn json(text: &str) -> Json {
    Json::from_text(text).unwrap()
}

fn text_of_saga() -> String {
    SagaId::generate().to_string()
}

/// The records of a saga that goes forward.
fn forward() -> Vec<Record> {
    let step = || "book".to_owned();
    let data = || Some(json("{}"));
    vec![
        Record::Done {
            step: step(),
            output: json("null"),
            data: data(),
            pivot: false,
            compensates: true,
            attempt: 1,
        },
        Record::CommandSent {
            step: step(),
            data: data(),
            pivot: false,
            compensates: true,
            sends: 1,
            reply_due_us: AT_US,
            command_hash: Some("5d41402a".to_owned()),
        },
        Record::Rejected { step: step(), reason: "no seat is left".to_owned() },
        Record::TimedOut { step: step() },
        Record::SkippedByCondition { step: step(), pivot: false },
        Record::Locked { step: step(), entities: vec!["seat-7".to_owned()] },
        Record::BlockedOnLock {
            step: step(),
            entity: "seat-7".to_owned(),
            holder: text_of_saga(),
            since_us: AT_US,
        },
        Record::AttemptStarted { step: step(), unfinished_attempts: 1 },
        Record::Completed,
    ]
}

/// The records of a saga that compensates.
fn backward() -> Vec<Record> {
    let step = || "book".to_owned();
    let by = || Operator { name: "ann".to_owned(), reason: "asked for".to_owned() };
    vec![
        Record::CompensationStarted { reason: "cancelled".to_owned(), by: Some(by()) },
        Record::CompensationStarted { reason: "over the limit".to_owned(), by: None },
        Record::LateReply {
            step: step(),
            reply: "seat.booked".to_owned(),
            output: Some(json("7")),
        },
        Record::Undone { step: step(), data: Some(json("{}")), attempt: 1 },
        Record::Stuck { step: None, reason: "its code is gone".to_owned(), pivot: false },
        Record::Resumed { by: by() },
        Record::RetriedFrom { step: step(), by: by() },
        Record::SkippedByOperator { step: step(), by: by() },
        Record::Compensated,
    ]
}
