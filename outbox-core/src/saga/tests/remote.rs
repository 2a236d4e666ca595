//! Remote steps: states, plans, replies.

use super::{after, ann, compensating, resumed, retried_from, shape};
use crate::{
    event::{EncodeError, EventMeta, OutboxEvent, SagaId},
    failure::RetryPolicy,
    saga::{
        CommandId, CommandPhase, Instance, Json, Plan, Record, Reply, ReplyEffect, Saga, SagaFault,
        SagaState, Shape, StepContext, StepError, StepState, When, after_reply, plan,
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

async fn charge(_: &mut Data, _: &StepContext<()>) -> Result<Command, StepError> {
    Ok(Command)
}

/// How long replies are awaited.
pub(super) const REPLY_TIMEOUT_US: i64 = 1_000;

/// `a` and `b`, which can be undone, then the pivot `c`, then `d`; all of them remote.
pub(super) fn remote_steps() -> Shape {
    let reply_timeout = Duration::from_micros(REPLY_TIMEOUT_US.unsigned_abs());
    let saga = Saga::<Data, ()>::builder("s", 1)
        .remote_step("a", charge)
        .compensate_remote_without_output(charge)
        .timeout(reply_timeout)
        .remote_step("b", charge)
        .compensate_remote_without_output(charge)
        .compensate_retry(RetryPolicy::attempts(2, Duration::from_secs(1)))
        .timeout(reply_timeout)
        .remote_step("c", charge)
        .pivot()
        .timeout(reply_timeout)
        .remote_step("d", charge)
        .timeout(reply_timeout)
        .build();
    assert_eq!(saga.faults(), []);
    saga.shape().clone()
}

async fn charge_beside(_: &Data, _: &StepContext<()>) -> Result<Command, StepError> {
    Ok(Command)
}

/// The same with `a` and `b` at the same time.
pub(super) fn remote_group() -> Shape {
    let reply_timeout = Duration::from_micros(REPLY_TIMEOUT_US.unsigned_abs());
    let saga = Saga::<Data, ()>::builder("s", 1)
        .parallel("g")
        .remote_branch("a", charge_beside)
        .compensate_remote_without_output(charge)
        .timeout(reply_timeout)
        .remote_branch("b", charge_beside)
        .compensate_remote_without_output(charge)
        .compensate_retry(RetryPolicy::attempts(2, Duration::from_secs(1)))
        .timeout(reply_timeout)
        .remote_step("c", charge)
        .pivot()
        .timeout(reply_timeout)
        .remote_step("d", charge)
        .timeout(reply_timeout)
        .build();
    assert_eq!(saga.faults(), []);
    saga.shape().clone()
}

pub(super) fn command_sent(step: &str, reply_due_us: i64) -> Record {
    let (pivot, compensates) = (step == "c", ["a", "b"].contains(&step));
    Record::CommandSent {
        step: step.into(),
        data: None,
        pivot,
        compensates,
        sends: 1,
        reply_due_us,
        command_hash: None,
    }
}

fn replied(step: &str) -> Record {
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

fn rejected(step: &str) -> Record {
    Record::Rejected { step: step.into(), reason: "no".into() }
}

fn timed_out(step: &str) -> Record {
    Record::TimedOut { step: step.into() }
}

fn late_reply(step: &str, done: bool) -> Record {
    Record::LateReply {
        step: step.into(),
        reply: "x".into(),
        output: done.then(|| Json::of(&1).unwrap()),
    }
}

/// An attempt that failed before it sent its command.
fn failed_until(step: &str, retry_at_us: i64) -> Record {
    Record::Failed { step: step.into(), attempt: 1, error: "no".into(), wait_us: 1, retry_at_us }
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
fn every_state_of_a_remote_step_with_every_record() {
    use StepState::{Cancelling, Done, Rejected, Undone, Unknown, Waiting};
    let forward = [command_sent("a", 9)];
    let compensates = [command_sent("a", 9), timed_out("a"), compensating(None)];
    let cancelled = [command_sent("a", 9), compensating(Some(ann())), command_sent("a", 20)];
    for (records, next, expected) in [
        (&forward[..], replied("a"), Some(Done)),
        (&forward, rejected("a"), Some(Rejected)),
        (&forward, timed_out("a"), Some(Unknown)),
        (&forward, command_sent("a", 20), Some(Waiting)),
        (&forward, compensating(Some(ann())), Some(Unknown)),
        (&forward, undone("a"), None),
        (&forward, Record::Completed, Some(Waiting)),
        (&compensates, command_sent("a", 20), Some(Cancelling)),
        (&compensates, replied("a"), None),
        (&compensates, late_reply("a", true), Some(Done)),
        (&compensates, late_reply("a", false), Some(Unknown)),
        (&compensates, Record::Compensated, None),
        (&cancelled, undone("a"), Some(Undone)),
        (&cancelled, late_reply("a", true), Some(Done)),
        (&cancelled, rejected("a"), None),
        (&cancelled, timed_out("a"), None),
        (&cancelled, Record::Compensated, None),
    ] {
        let next_state = after(records).after(&next).map(|at| state(&at, "a"));
        assert_eq!(next_state, expected, "{next:?} after {records:?}");
    }
}

#[test]
fn an_end_does_not_change_and_a_late_reply_is_recorded_once() {
    let compensated = after(&[
        command_sent("a", 9),
        compensating(Some(ann())),
        command_sent("a", 20),
        undone("a"),
        Record::Compensated,
    ]);
    let noted = compensated.after(&late_reply("a", true)).unwrap();
    assert_eq!((noted.state, state(&noted, "a")), (SagaState::Compensated, StepState::Undone));
    assert_eq!(noted.after(&late_reply("a", true)), None);
    for record in [replied("a"), rejected("a"), timed_out("a"), command_sent("a", 30), undone("a")]
    {
        assert_eq!(compensated.after(&record), None, "{record:?}");
    }
}

#[test]
fn while_the_pivot_may_be_done_there_is_no_way_back() {
    let before = [command_sent("a", 9), replied("a"), command_sent("b", 9), replied("b")];
    let at = after(&[&before[..], &[command_sent("c", 9)]].concat());
    assert!(at.past_pivot());
    assert_eq!(at.after(&compensating(Some(ann()))), None);
    assert_eq!(at.after(&timed_out("c")), None);
    assert_eq!(
        plan(&remote_steps(), &at, When { now_us: 8, overdue: true }),
        Plan::Wait(Duration::from_micros(1))
    );
    assert_eq!(
        plan(&remote_steps(), &at, When { now_us: 9, overdue: true }),
        Plan::Run(vec![2]),
        "the command is sent again"
    );
    let rejected_pivot = at.after(&rejected("c")).unwrap();
    assert!(!rejected_pivot.past_pivot());
    let Plan::Append(record @ Record::CompensationStarted { .. }) =
        plan(&remote_steps(), &rejected_pivot, When { now_us: 9, overdue: false })
    else {
        panic!("{rejected_pivot:?}")
    };
    assert_eq!(
        plan(
            &remote_steps(),
            &rejected_pivot.after(&record).unwrap(),
            When { now_us: 9, overdue: false }
        ),
        Plan::Undo(vec![1])
    );
}

#[test]
fn what_is_planned_of_remote_steps() {
    let shape = remote_steps();
    let now = When { now_us: 10, overdue: false };
    let done = |step| [command_sent(step, 5), replied(step)];
    let past_pivot = [done("a"), done("b"), done("c")].concat();
    let wait = |us| Plan::Wait(Duration::from_micros(us));
    for (records, expected) in [
        (vec![command_sent("a", 15)], wait(5)),
        (vec![command_sent("a", 10)], Plan::Append(timed_out("a"))),
        (done("a").to_vec(), Plan::Run(vec![1])),
        (vec![command_sent("a", 15), compensating(Some(ann()))], Plan::Undo(vec![0])),
        (vec![command_sent("a", 15), compensating(Some(ann())), command_sent("a", 12)], wait(2)),
        (
            vec![command_sent("a", 15), compensating(Some(ann())), command_sent("a", 10)],
            Plan::Undo(vec![0]),
        ),
        (
            vec![command_sent("a", 15), rejected("a"), compensating(None)],
            Plan::Append(Record::Compensated),
        ),
        (
            [&done("a")[..], &[command_sent("b", 5), timed_out("b"), compensating(None)]].concat(),
            Plan::Undo(vec![1]),
        ),
        ([&past_pivot[..], &[command_sent("d", 10)]].concat(), Plan::Run(vec![3])),
        ([&past_pivot[..], &[command_sent("d", 11)]].concat(), wait(1)),
        ([&past_pivot[..], &[command_sent("d", 5), failed_until("d", 14)]].concat(), wait(4)),
        (
            [&past_pivot[..], &[command_sent("d", 5), failed_until("d", 9), command_sent("d", 12)]]
                .concat(),
            wait(2),
        ),
    ] {
        assert_eq!(plan(&shape, &after(&records), now), expected, "{records:?}");
    }
    for records in
        [vec![command_sent("a", 15), rejected("a")], vec![command_sent("a", 15), timed_out("a")]]
    {
        assert!(
            matches!(
                plan(&shape, &after(&records), now),
                Plan::Append(Record::CompensationStarted { .. })
            ),
            "{records:?}"
        );
    }
    let rejected_past_pivot =
        after(&[&past_pivot[..], &[command_sent("d", 10), rejected("d")]].concat());
    assert!(matches!(plan(&shape, &rejected_past_pivot, now), Plan::Append(Record::Stuck { .. })));
    let no_longer_remote = after(&[command_sent("a", 15), compensating(Some(ann()))]);
    assert!(
        matches!(plan(&super::shape(), &no_longer_remote, now), Plan::Append(Record::Stuck { .. })),
        "a later definition does the step itself"
    );
}

#[test]
fn an_operator_s_retry_sends_the_command_again() {
    let round = |at: &Instance| at.step("d").unwrap().command.as_ref().unwrap().round.get();
    let done = |step| [command_sent(step, 5), replied(step)];
    let past_pivot = [done("a"), done("b"), done("c")].concat();
    let stuck =
        after(&[&past_pivot[..], &[command_sent("d", 10), rejected("d"), stuck_at("d")]].concat());
    for record in [resumed(), retried_from("d"), retried_from("a")] {
        let again = stuck.after(&record).unwrap();
        assert_eq!(
            (state(&again, "d"), round(&again)),
            (StepState::Pending, 2),
            "a rejection belongs to its round"
        );
    }
    let waiting = after(&[&past_pivot[..], &[command_sent("d", 10), stuck_at("d")]].concat());
    assert_eq!(
        round(&waiting.after(&retried_from("d")).unwrap()),
        1,
        "the participant may do it yet: the same command again"
    );
    assert_eq!(
        state(&waiting.after(&replied("d")).unwrap(), "d"),
        StepState::Done,
        "a reply counts while the saga is stuck"
    );
    let skipped = stuck.after(&super::skipped("d")).unwrap();
    assert_eq!(state(&skipped, "d"), StepState::Skipped);
}

/// Seen in a review: the participant had charged a card; charged again in a second round, it would
/// have been refunded once.
#[test]
fn a_reply_that_comes_before_the_operator_s_retry_is_repeated_and_the_step_not_done_twice() {
    let round =
        |at: &Instance, step: &str| at.step(step).unwrap().command.as_ref().unwrap().round.get();
    let before = [command_sent("a", 5), replied("a"), command_sent("b", 10), stuck_at("b")];
    let replied_meanwhile = after(&[&before[..], &[replied("b")]].concat());
    assert_eq!(state(&replied_meanwhile, "b"), StepState::Done);
    for step in ["b", "a"] {
        let again = replied_meanwhile.after(&retried_from(step)).unwrap();
        assert_eq!(
            (state(&again, "b"), round(&again, "b")),
            (StepState::Pending, 1),
            "retried from {step}"
        );
    }
    let explicitly = replied_meanwhile.after(&retried_from("a")).unwrap();
    assert_eq!(round(&explicitly, "a"), 2, "what was done before, and seen, is done again");
}

pub(super) fn command_id(step: &str, round: u32, phase: CommandPhase) -> CommandId {
    CommandId {
        saga: SagaId::from_uuid(uuid::Uuid::nil()),
        step: step.into(),
        round: NonZeroU32::new(round).unwrap(),
        phase,
    }
}

pub(super) fn reply_effect(
    shape: &Shape,
    at: &Instance,
    id: &CommandId,
    reply: Reply,
) -> ReplyEffect {
    let step = &shape.steps[shape.number(&id.step).unwrap()];
    after_reply(step, at, id, reply, "x", 0, |wait| wait)
}

#[test]
fn the_effect_of_a_reply() {
    let done = || Reply::Done(Json::of(&1).unwrap());
    let no = || Reply::Rejected("no".into());
    let waiting = after(&[command_sent("a", 9)]);
    let unknown = after(&[command_sent("a", 9), compensating(Some(ann()))]);
    let cancelling = unknown.after(&command_sent("a", 20)).unwrap();
    let is_done = waiting.after(&replied("a")).unwrap();
    let is_undone = cancelling.after(&undone("a")).unwrap();
    let fails_to_undo =
        is_done.after(&compensating(Some(ann()))).unwrap().after(&failed_until("a", 9)).unwrap();
    let fails_to_undo_again = cancelling.after(&failed_until("a", 9)).unwrap();
    let retried = is_done.after(&stuck_at("b")).unwrap().after(&retried_from("a")).unwrap();
    for (at, phase, reply, expected) in [
        (&waiting, CommandPhase::Do, done(), ReplyEffect::Append(replied("a"))),
        (&waiting, CommandPhase::Do, no(), ReplyEffect::Append(rejected("a"))),
        (&waiting, CommandPhase::Undo, Reply::Undone, ReplyEffect::Unexpected),
        (&unknown, CommandPhase::Undo, Reply::Undone, ReplyEffect::Unexpected),
        (&is_done, CommandPhase::Undo, Reply::Undone, ReplyEffect::Unexpected),
        (&fails_to_undo, CommandPhase::Undo, Reply::Undone, ReplyEffect::Unexpected),
        (&fails_to_undo_again, CommandPhase::Undo, Reply::Undone, ReplyEffect::Append(undone("a"))),
        (&retried, CommandPhase::Do, done(), ReplyEffect::Nothing),
        (&is_done, CommandPhase::Do, done(), ReplyEffect::Nothing),
        (&is_done, CommandPhase::Do, no(), ReplyEffect::Nothing),
        (&unknown, CommandPhase::Do, done(), ReplyEffect::Append(late_reply("a", true))),
        (&unknown, CommandPhase::Do, no(), ReplyEffect::Append(late_reply("a", false))),
        (&cancelling, CommandPhase::Do, done(), ReplyEffect::Append(late_reply("a", true))),
        (&cancelling, CommandPhase::Undo, Reply::Undone, ReplyEffect::Append(undone("a"))),
        (&is_undone, CommandPhase::Undo, Reply::Undone, ReplyEffect::Nothing),
        (&is_undone, CommandPhase::Do, done(), ReplyEffect::Append(late_reply("a", true))),
    ] {
        assert_eq!(
            reply_effect(&remote_steps(), at, &command_id("a", 1, phase), reply.clone()),
            expected,
            "{reply:?} to {phase:?} at {at:?}"
        );
    }
    let ReplyEffect::Append(Record::Failed { attempt: 1, .. }) =
        reply_effect(&remote_steps(), &cancelling, &command_id("a", 1, CommandPhase::Undo), no())
    else {
        panic!("a rejected compensation is sent again")
    };
    assert_eq!(
        reply_effect(&remote_steps(), &waiting, &command_id("a", 2, CommandPhase::Do), done()),
        ReplyEffect::Unexpected,
        "a round to come"
    );
    assert_eq!(
        reply_effect(&remote_steps(), &retried, &command_id("a", 2, CommandPhase::Do), done()),
        ReplyEffect::Unexpected,
        "a round that has just begun"
    );
    let again = retried.after(&stuck_at("a")).unwrap().after(&retried_from("a")).unwrap();
    assert_eq!(
        reply_effect(&remote_steps(), &again, &command_id("a", 2, CommandPhase::Do), done()),
        ReplyEffect::Unexpected,
        "a round begun twice"
    );
    let sent_again = retried.after(&command_sent("a", 9)).unwrap();
    assert_eq!(
        reply_effect(&remote_steps(), &sent_again, &command_id("a", 2, CommandPhase::Do), done()),
        ReplyEffect::Append(replied("a"))
    );
    assert_eq!(
        reply_effect(&remote_steps(), &waiting, &command_id("b", 1, CommandPhase::Do), done()),
        ReplyEffect::Unexpected,
        "no command was sent"
    );
    assert_eq!(
        reply_effect(&remote_steps(), &after(&[]), &command_id("a", 1, CommandPhase::Do), done()),
        ReplyEffect::Unexpected
    );
}

#[test]
fn a_remote_step_without_a_timeout_is_a_fault() {
    let saga = Saga::<Data, ()>::builder("s", 1).remote_step("a", charge).build();
    assert_eq!(saga.faults(), [SagaFault::NoTimeout { saga: "s".into(), step: "a".into() }]);
    assert!(!shape().has_remote_steps() && remote_steps().has_remote_steps());
}

#[test]
fn a_step_accepts_replies_of_the_consumer_and_the_source_that_it_names() {
    let reply_timeout = Duration::from_secs(1);
    let remote = |of: Option<&'static str>, source: Option<&'static str>| {
        let step =
            Saga::<Data, ()>::builder("s", 1).remote_step("a", charge).timeout(reply_timeout);
        let step = if let Some(of) = of { step.of(of) } else { step };
        let step = if let Some(source) = source { step.from_source(source) } else { step };
        let saga = step.build();
        (saga.faults().to_vec(), saga.shape().steps[0].remote.unwrap())
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
        let (faults, remote) = remote(of, source);
        assert!(
            faults.is_empty() && remote.accepts_from(by, from) == expected,
            "{of:?} {source:?} {by:?} {from}"
        );
    }
    assert_eq!(remote(Some(""), None).0, [SagaFault::Name(String::new())]);
    assert_eq!(
        remote(None, Some("a\nb")).0,
        [SagaFault::Source { saga: "s".into(), step: "a".into() }]
    );
}
