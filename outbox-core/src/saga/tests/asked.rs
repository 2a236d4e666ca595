//! Steps that others are asked to do: states, plans, answers.

use super::{after, ann, from, resumed, shape, turned};
use crate::{
    event::{EncodeError, EventMeta, OutboxEvent, SagaId},
    failure::RetryPolicy,
    saga::{
        Answer, Call, Heard, Instance, Json, Phase, Plan, Record, Saga, SagaFault, SagaState,
        Shape, StepContext, StepError, StepState, When, after_answer, plan,
    },
};
use bytes::Bytes;
use std::{num::NonZeroU32, time::Duration};

struct Data;

struct Command;

impl OutboxEvent for Command {
    fn meta(&self) -> EventMeta<'_> {
        EventMeta::new("do.it")
    }

    fn payload(&self) -> Result<Bytes, EncodeError> {
        Ok(Bytes::new())
    }
}

async fn ask(_: &mut Data, _: &StepContext<()>) -> Result<Command, StepError> {
    Ok(Command)
}

/// How long answers are awaited.
pub(super) const PATIENCE_US: i64 = 1_000;

/// `a` and `b`, which can be undone, then the pivot `c`, then `d`; others are asked to do all of them.
pub(super) fn asking() -> Shape {
    let patience = Duration::from_micros(PATIENCE_US.unsigned_abs());
    let saga = Saga::<Data, ()>::builder("s", 1)
        .ask("a", ask)
        .compensate_ask_plain(ask)
        .timeout(patience)
        .ask("b", ask)
        .compensate_ask_plain(ask)
        .compensate_retry(RetryPolicy::attempts(2, Duration::from_secs(1)))
        .timeout(patience)
        .ask("c", ask)
        .pivot()
        .timeout(patience)
        .ask("d", ask)
        .timeout(patience)
        .build();
    assert_eq!(saga.faults(), []);
    saga.shape().clone()
}

async fn ask_beside(_: &Data, _: &StepContext<()>) -> Result<Command, StepError> {
    Ok(Command)
}

/// The same with `a` and `b` at the same time.
pub(super) fn asking_together() -> Shape {
    let patience = Duration::from_micros(PATIENCE_US.unsigned_abs());
    let saga = Saga::<Data, ()>::builder("s", 1)
        .parallel("g")
        .branch_ask("a", ask_beside)
        .compensate_ask_plain(ask)
        .timeout(patience)
        .branch_ask("b", ask_beside)
        .compensate_ask_plain(ask)
        .compensate_retry(RetryPolicy::attempts(2, Duration::from_secs(1)))
        .timeout(patience)
        .ask("c", ask)
        .pivot()
        .timeout(patience)
        .ask("d", ask)
        .timeout(patience)
        .build();
    assert_eq!(saga.faults(), []);
    saga.shape().clone()
}

pub(super) fn asked(step: &str, until_us: i64) -> Record {
    let (pivot, compensates) = (step == "c", ["a", "b"].contains(&step));
    Record::Asked {
        step: step.into(),
        data: None,
        pivot,
        compensates,
        times: 1,
        until_us,
        command: None,
    }
}

fn answered(step: &str) -> Record {
    let (pivot, compensates) = (step == "c", ["a", "b"].contains(&step));
    Record::Done {
        step: step.into(),
        output: Json::of(&1).unwrap(),
        data: None,
        pivot,
        compensates,
        attempt: 1,
    }
}

fn refused(step: &str) -> Record {
    Record::Refused { step: step.into(), reason: "no".into() }
}

fn timed_out(step: &str) -> Record {
    Record::TimedOut { step: step.into() }
}

fn late(step: &str, done: bool) -> Record {
    Record::Late {
        step: step.into(),
        answer: "x".into(),
        output: done.then(|| Json::of(&1).unwrap()),
    }
}

/// An attempt that failed before its command went out.
fn rests(step: &str, until_us: i64) -> Record {
    Record::Failed { step: step.into(), attempt: 1, error: "no".into(), wait_us: 1, until_us }
}

fn undone(step: &str) -> Record {
    Record::Undone { step: step.into(), data: None, attempt: 1 }
}

fn stuck_at(step: &str) -> Record {
    Record::Stuck { step: Some(step.into()), reason: "no".into(), pivot: false }
}

fn state(at: &Instance, step: &str) -> StepState {
    at.step(step).unwrap().state
}

#[test]
fn what_becomes_of_a_step_that_others_are_asked_to_do() {
    use StepState::{Cancelling, Done, Refused, Undone, Unknown, Waiting};
    let forward = [asked("a", 9)];
    let gone_back = [asked("a", 9), timed_out("a"), turned(None)];
    let cancelled = [asked("a", 9), turned(Some(ann())), asked("a", 20)];
    for (records, next, expected) in [
        (&forward[..], answered("a"), Some(Done)),
        (&forward, refused("a"), Some(Refused)),
        (&forward, timed_out("a"), Some(Unknown)),
        (&forward, asked("a", 20), Some(Waiting)),
        (&forward, turned(Some(ann())), Some(Unknown)),
        (&forward, undone("a"), None),
        (&forward, Record::Completed, Some(Waiting)),
        (&gone_back, asked("a", 20), Some(Cancelling)),
        (&gone_back, answered("a"), None),
        (&gone_back, late("a", true), Some(Done)),
        (&gone_back, late("a", false), Some(Unknown)),
        (&gone_back, Record::Compensated, None),
        (&cancelled, undone("a"), Some(Undone)),
        (&cancelled, late("a", true), Some(Done)),
        (&cancelled, refused("a"), None),
        (&cancelled, timed_out("a"), None),
        (&cancelled, Record::Compensated, None),
    ] {
        let next_state = after(records).after(&next).map(|at| state(&at, "a"));
        assert_eq!(next_state, expected, "{next:?} after {records:?}");
    }
}

#[test]
fn an_end_does_not_change_and_a_late_answer_is_noted_once() {
    let compensated = after(&[
        asked("a", 9),
        turned(Some(ann())),
        asked("a", 20),
        undone("a"),
        Record::Compensated,
    ]);
    let noted = compensated.after(&late("a", true)).unwrap();
    assert_eq!((noted.state, state(&noted, "a")), (SagaState::Compensated, StepState::Undone));
    assert_eq!(noted.after(&late("a", true)), None);
    for record in [answered("a"), refused("a"), timed_out("a"), asked("a", 30), undone("a")] {
        assert_eq!(compensated.after(&record), None, "{record:?}");
    }
}

#[test]
fn while_the_pivot_may_be_done_there_is_no_way_back() {
    let before = [asked("a", 9), answered("a"), asked("b", 9), answered("b")];
    let at = after(&[&before[..], &[asked("c", 9)]].concat());
    assert!(at.past_pivot());
    assert_eq!(at.after(&turned(Some(ann()))), None);
    assert_eq!(at.after(&timed_out("c")), None);
    assert_eq!(
        plan(&asking(), &at, When { now_us: 8, overdue: true }),
        Plan::Wait(Duration::from_micros(1))
    );
    assert_eq!(
        plan(&asking(), &at, When { now_us: 9, overdue: true }),
        Plan::Run(vec![2]),
        "it is asked again"
    );
    let refused = at.after(&refused("c")).unwrap();
    assert!(!refused.past_pivot());
    let Plan::Note(record @ Record::TurnedBack { .. }) =
        plan(&asking(), &refused, When { now_us: 9, overdue: false })
    else {
        panic!("{refused:?}")
    };
    assert_eq!(
        plan(&asking(), &refused.after(&record).unwrap(), When { now_us: 9, overdue: false }),
        Plan::Undo(vec![1])
    );
}

#[test]
fn what_is_planned_of_steps_that_others_are_asked_to_do() {
    let shape = asking();
    let now = When { now_us: 10, overdue: false };
    let done = |step| [asked(step, 5), answered(step)];
    let past_pivot = [done("a"), done("b"), done("c")].concat();
    let wait = |us| Plan::Wait(Duration::from_micros(us));
    for (records, expected) in [
        (vec![asked("a", 15)], wait(5)),
        (vec![asked("a", 10)], Plan::Note(timed_out("a"))),
        (done("a").to_vec(), Plan::Run(vec![1])),
        (vec![asked("a", 15), turned(Some(ann()))], Plan::Undo(vec![0])),
        (vec![asked("a", 15), turned(Some(ann())), asked("a", 12)], wait(2)),
        (vec![asked("a", 15), turned(Some(ann())), asked("a", 10)], Plan::Undo(vec![0])),
        (vec![asked("a", 15), refused("a"), turned(None)], Plan::Note(Record::Compensated)),
        (
            [&done("a")[..], &[asked("b", 5), timed_out("b"), turned(None)]].concat(),
            Plan::Undo(vec![1]),
        ),
        ([&past_pivot[..], &[asked("d", 10)]].concat(), Plan::Run(vec![3])),
        ([&past_pivot[..], &[asked("d", 11)]].concat(), wait(1)),
        ([&past_pivot[..], &[asked("d", 5), rests("d", 14)]].concat(), wait(4)),
        ([&past_pivot[..], &[asked("d", 5), rests("d", 9), asked("d", 12)]].concat(), wait(2)),
    ] {
        assert_eq!(plan(&shape, &after(&records), now), expected, "{records:?}");
    }
    for records in [vec![asked("a", 15), refused("a")], vec![asked("a", 15), timed_out("a")]] {
        assert!(
            matches!(plan(&shape, &after(&records), now), Plan::Note(Record::TurnedBack { .. })),
            "{records:?}"
        );
    }
    let refused_past_pivot = after(&[&past_pivot[..], &[asked("d", 10), refused("d")]].concat());
    assert!(matches!(plan(&shape, &refused_past_pivot, now), Plan::Note(Record::Stuck { .. })));
    let unasked = after(&[asked("a", 15), turned(Some(ann()))]);
    assert!(
        matches!(plan(&super::shape(), &unasked, now), Plan::Note(Record::Stuck { .. })),
        "a later definition does the step itself"
    );
}

#[test]
fn an_operator_lets_a_step_be_asked_for_once_more() {
    let round = |at: &Instance| at.step("d").unwrap().asked.as_ref().unwrap().round.get();
    let done = |step| [asked(step, 5), answered(step)];
    let past_pivot = [done("a"), done("b"), done("c")].concat();
    let stuck = after(&[&past_pivot[..], &[asked("d", 10), refused("d"), stuck_at("d")]].concat());
    for record in [resumed(), from("d"), from("a")] {
        let again = stuck.after(&record).unwrap();
        assert_eq!(
            (state(&again, "d"), round(&again)),
            (StepState::Failing, 2),
            "a refusal is for its round"
        );
    }
    let waiting = after(&[&past_pivot[..], &[asked("d", 10), stuck_at("d")]].concat());
    assert_eq!(
        round(&waiting.after(&from("d")).unwrap()),
        1,
        "it may be done yet: the same command again"
    );
    assert_eq!(
        state(&waiting.after(&answered("d")).unwrap(), "d"),
        StepState::Done,
        "an answer counts while it is stuck"
    );
    let passed = stuck.after(&super::passed("d")).unwrap();
    assert_eq!(state(&passed, "d"), StepState::Skipped);
}

/// Seen by reading: the participant had charged a card; charged once more in a second round, it would have been refunded once.
#[test]
fn an_answer_that_comes_before_the_operator_s_retry_is_repeated_and_not_earned_twice() {
    let round =
        |at: &Instance, step: &str| at.step(step).unwrap().asked.as_ref().unwrap().round.get();
    let before = [asked("a", 5), answered("a"), asked("b", 10), stuck_at("b")];
    let answered_meanwhile = after(&[&before[..], &[answered("b")]].concat());
    assert_eq!(state(&answered_meanwhile, "b"), StepState::Done);
    for step in ["b", "a"] {
        let again = answered_meanwhile.after(&from(step)).unwrap();
        assert_eq!(
            (state(&again, "b"), round(&again, "b")),
            (StepState::Failing, 1),
            "retried from {step}"
        );
    }
    let explicitly = answered_meanwhile.after(&from("a")).unwrap();
    assert_eq!(round(&explicitly, "a"), 2, "what was done before, and seen, is done once more");
}

pub(super) fn call(step: &str, round: u32, phase: Phase) -> Call {
    Call {
        saga: SagaId::from_uuid(uuid::Uuid::nil()),
        step: step.into(),
        round: NonZeroU32::new(round).unwrap(),
        phase,
    }
}

pub(super) fn hear(shape: &Shape, at: &Instance, call: &Call, answer: Answer) -> Heard {
    let step = &shape.steps[shape.number(&call.step).unwrap()];
    after_answer(step, at, call, answer, "x", 0, |wait| wait)
}

#[test]
fn what_follows_from_an_answer() {
    let done = || Answer::Done(Json::of(&1).unwrap());
    let no = || Answer::Refused("no".into());
    let waiting = after(&[asked("a", 9)]);
    let unknown = after(&[asked("a", 9), turned(Some(ann()))]);
    let cancelling = unknown.after(&asked("a", 20)).unwrap();
    let is_done = waiting.after(&answered("a")).unwrap();
    let is_undone = cancelling.after(&undone("a")).unwrap();
    let fails_to_undo = is_done.after(&turned(Some(ann()))).unwrap().after(&rests("a", 9)).unwrap();
    let fails_to_undo_again = cancelling.after(&rests("a", 9)).unwrap();
    let once_more = is_done.after(&stuck_at("b")).unwrap().after(&from("a")).unwrap();
    for (at, phase, answer, expected) in [
        (&waiting, Phase::Do, done(), Heard::Write(answered("a"))),
        (&waiting, Phase::Do, no(), Heard::Write(refused("a"))),
        (&waiting, Phase::Undo, Answer::Undone, Heard::Unasked),
        (&unknown, Phase::Undo, Answer::Undone, Heard::Unasked),
        (&is_done, Phase::Undo, Answer::Undone, Heard::Unasked),
        (&fails_to_undo, Phase::Undo, Answer::Undone, Heard::Unasked),
        (&fails_to_undo_again, Phase::Undo, Answer::Undone, Heard::Write(undone("a"))),
        (&once_more, Phase::Do, done(), Heard::Nothing),
        (&is_done, Phase::Do, done(), Heard::Nothing),
        (&is_done, Phase::Do, no(), Heard::Nothing),
        (&unknown, Phase::Do, done(), Heard::Write(late("a", true))),
        (&unknown, Phase::Do, no(), Heard::Write(late("a", false))),
        (&cancelling, Phase::Do, done(), Heard::Write(late("a", true))),
        (&cancelling, Phase::Undo, Answer::Undone, Heard::Write(undone("a"))),
        (&is_undone, Phase::Undo, Answer::Undone, Heard::Nothing),
        (&is_undone, Phase::Do, done(), Heard::Write(late("a", true))),
    ] {
        assert_eq!(
            hear(&asking(), at, &call("a", 1, phase), answer.clone()),
            expected,
            "{answer:?} to {phase:?} at {at:?}"
        );
    }
    let Heard::Write(Record::Failed { attempt: 1, .. }) =
        hear(&asking(), &cancelling, &call("a", 1, Phase::Undo), no())
    else {
        panic!("an undoing that is refused is tried again")
    };
    assert_eq!(
        hear(&asking(), &waiting, &call("a", 2, Phase::Do), done()),
        Heard::Unasked,
        "of a round to come"
    );
    assert_eq!(
        hear(&asking(), &once_more, &call("a", 2, Phase::Do), done()),
        Heard::Unasked,
        "of one that has just begun"
    );
    let again = once_more.after(&stuck_at("a")).unwrap().after(&from("a")).unwrap();
    assert_eq!(
        hear(&asking(), &again, &call("a", 2, Phase::Do), done()),
        Heard::Unasked,
        "nor of one begun twice"
    );
    let asked_again = once_more.after(&asked("a", 9)).unwrap();
    assert_eq!(
        hear(&asking(), &asked_again, &call("a", 2, Phase::Do), done()),
        Heard::Write(answered("a"))
    );
    assert_eq!(
        hear(&asking(), &waiting, &call("b", 1, Phase::Do), done()),
        Heard::Unasked,
        "nobody was asked"
    );
    assert_eq!(hear(&asking(), &after(&[]), &call("a", 1, Phase::Do), done()), Heard::Unasked);
}

#[test]
fn a_definition_that_waits_for_ever_is_refused() {
    let saga = Saga::<Data, ()>::builder("s", 1).ask("a", ask).build();
    assert_eq!(saga.faults(), [SagaFault::NoTimeout { saga: "s".into(), step: "a".into() }]);
    assert!(!shape().asks() && asking().asks());
}

#[test]
fn an_answer_is_from_whom_the_step_names() {
    let patience = Duration::from_secs(1);
    let asks = |of: Option<&'static str>, source: Option<&'static str>| {
        let step = Saga::<Data, ()>::builder("s", 1).ask("a", ask).timeout(patience);
        let step = if let Some(of) = of { step.of(of) } else { step };
        let step = if let Some(source) = source { step.from_source(source) } else { step };
        let saga = step.build();
        (saga.faults().to_vec(), saga.shape().steps[0].asks.unwrap())
    };
    for (of, source, by, from, expected) in [
        (None, None, None, "/x", true),
        (None, None, Some("audit"), "/x", true),
        (Some("payments"), None, Some("payments"), "/x", true),
        (Some("payments"), None, Some("audit"), "/x", false),
        (Some("payments"), None, Some("payments "), "/x", false),
        (Some("payments"), None, None, "/x", false),
        (None, Some("/x"), None, "/x", true),
        (None, Some("/x"), Some("payments"), "/y", false),
        (Some("payments"), Some("/x"), Some("payments"), "/x", true),
        (Some("payments"), Some("/x"), Some("payments"), "/X", false),
        (Some("payments"), Some("/x"), Some("audit"), "/x", false),
    ] {
        let (faults, asks) = asks(of, source);
        assert!(
            faults.is_empty() && asks.takes_from(by, from) == expected,
            "{of:?} {source:?} {by:?} {from}"
        );
    }
    assert_eq!(asks(Some(""), None).0, [SagaFault::Name(String::new())]);
    assert_eq!(
        asks(None, Some("a\nb")).0,
        [SagaFault::Source { saga: "s".into(), step: "a".into() }]
    );
}
