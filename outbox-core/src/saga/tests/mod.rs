//! States, logs and plans: by tables, and with random records.

mod locks;
mod network;
mod random;
mod remote;
mod waits;

use super::{
    Instance, Json, Operator, Plan, Record, Saga, SagaState, Shape, StepContext, StepError,
    StepFailure, StepState, When, after_crash, after_failure, plan,
};
use crate::failure::RetryPolicy;
use std::time::Duration;

struct Data;

async fn step(_: &mut Data, _: &StepContext<()>) -> Result<i32, StepError> {
    Ok(1)
}

async fn branch(_: &Data, _: &StepContext<()>) -> Result<i32, StepError> {
    Ok(1)
}

async fn undo(_: &mut Data, _: i32, _: &StepContext<()>) -> Result<(), StepError> {
    Ok(())
}

/// `a`, then `b` and `c` at the same time, then the pivot `d`, then `e`.
fn shape() -> Shape {
    let policy = RetryPolicy::attempts(2, Duration::from_secs(1));
    let saga = Saga::<Data, ()>::builder("s", 1)
        .step("a", step)
        .compensate(undo)
        .retry(policy)
        .compensate_retry(policy)
        .parallel("g")
        .branch("b", branch)
        .compensate(undo)
        .branch("c", branch)
        .compensate(undo)
        .step("d", step)
        .pivot()
        .step("e", step)
        .build();
    assert_eq!(saga.faults(), []);
    saga.shape().clone()
}

fn done(step: &str) -> Record {
    let (output, pivot) = (Json::of(&1).unwrap(), step == "d");
    let compensates = ["a", "b", "c"].contains(&step);
    Record::Done {
        step: step.into(),
        output: output.clone(),
        data: Some(output),
        pivot,
        compensates,
        attempt: 1,
    }
}

fn failed(step: &str) -> Record {
    Record::Failed { step: step.into(), attempt: 1, error: "no".into(), wait_us: 5, retry_at_us: 0 }
}

fn undone(step: &str) -> Record {
    Record::Undone { step: step.into(), data: None, attempt: 1 }
}

fn compensating(by: Option<Operator>) -> Record {
    Record::CompensationStarted { reason: "no".into(), by }
}

fn ann() -> Operator {
    Operator { name: "ann".into(), reason: "because".into() }
}

fn stuck() -> Record {
    stuck_at("a", false)
}

fn stuck_at(step: &str, pivot: bool) -> Record {
    Record::Stuck { step: Some(step.into()), reason: "no".into(), pivot }
}

fn attempt_started(step: &str, unfinished_attempts: u32) -> Record {
    Record::AttemptStarted { step: step.into(), unfinished_attempts }
}

fn resumed() -> Record {
    Record::Resumed { by: ann() }
}

fn skipped(step: &str) -> Record {
    Record::SkippedByOperator { step: step.into(), by: ann() }
}

fn retried_from(step: &str) -> Record {
    Record::RetriedFrom { step: step.into(), by: ann() }
}

const fn when(overdue: bool) -> When {
    When { now_us: 0, overdue }
}

fn after(records: &[Record]) -> Instance {
    let apply = |at: Instance, record: &Record| {
        at.after(record).unwrap_or_else(|| panic!("{record:?} at {at:?}"))
    };
    records.iter().fold(Instance::default(), apply)
}

/// Every kind of record.
fn every() -> Vec<Record> {
    let started = Record::Started { data: Json::of(&0).unwrap() };
    let by_condition = Record::SkippedByCondition { step: "e".into(), pivot: false };
    let ended = [Record::Completed, Record::Compensated];
    let rest = [
        done("e"),
        failed("a"),
        compensating(None),
        compensating(Some(ann())),
        undone("a"),
        stuck(),
        resumed(),
        retried_from("a"),
    ];
    [started, by_condition].into_iter().chain(rest).chain([skipped("a")]).chain(ended).collect()
}

#[test]
fn every_state_with_every_record() {
    use SagaState::{Compensated, Compensating, Completed, Running, Stuck};
    let forward_stuck = || after(&[failed("a"), stuck()]);
    let backward_stuck = || after(&[done("a"), compensating(None), stuck()]);
    let past_pivot = || after(&[done("d"), failed("a")]);
    let past_pivot_stuck = || after(&[done("d"), failed("a"), stuck()]);
    let columns = [
        "started",
        "skipped_by_condition",
        "done",
        "failed",
        "compensation_started",
        "cancel",
        "undone",
        "stuck",
        "resumed",
        "retried_from",
        "skipped_by_operator",
        "completed",
        "compensated",
    ];
    let no = None;
    for (name, at, expected) in [
        (
            "running",
            after(&[failed("a")]),
            [
                no,
                Some(Running),
                Some(Running),
                Some(Running),
                Some(Compensating),
                Some(Compensating),
                no,
                Some(Stuck),
                no,
                no,
                no,
                Some(Completed),
                no,
            ],
        ),
        (
            "past its pivot",
            past_pivot(),
            [
                no,
                Some(Running),
                Some(Running),
                Some(Running),
                no,
                no,
                no,
                Some(Stuck),
                no,
                no,
                no,
                Some(Completed),
                no,
            ],
        ),
        (
            "compensating",
            after(&[done("a"), compensating(None)]),
            [
                no,
                no,
                no,
                Some(Compensating),
                no,
                no,
                Some(Compensating),
                Some(Stuck),
                no,
                no,
                no,
                no,
                Some(Compensated),
            ],
        ),
        (
            "stuck forward",
            forward_stuck(),
            [
                no,
                no,
                no,
                no,
                no,
                Some(Compensating),
                no,
                no,
                Some(Running),
                Some(Running),
                Some(Running),
                no,
                no,
            ],
        ),
        (
            "stuck past its pivot",
            past_pivot_stuck(),
            [no, no, no, no, no, no, no, no, Some(Running), Some(Running), Some(Running), no, no],
        ),
        (
            "stuck backward",
            backward_stuck(),
            [
                no,
                no,
                no,
                no,
                no,
                no,
                no,
                no,
                Some(Compensating),
                Some(Compensating),
                Some(Compensating),
                no,
                no,
            ],
        ),
        ("completed", after(&[Record::Completed]), [no; 13]),
        ("compensated", after(&[compensating(None), Record::Compensated]), [no; 13]),
    ] {
        for ((record, column), expected) in every().iter().zip(columns).zip(expected) {
            assert_eq!(at.after(record).map(|next| next.state), expected, "{name} with {column}");
        }
    }
}

#[test]
fn a_step_counts_its_failures_until_it_is_done_and_its_compensation_counts_its_own() {
    let at = after(&[failed("a"), failed("a")]);
    assert_eq!((at.failures("a"), at.step("a").unwrap().failing_us), (2, 10));
    let at = after(&[failed("a"), failed("a"), done("a")]);
    assert_eq!((at.failures("a"), at.step("a").unwrap().state), (0, StepState::Done));
    let at = after(&[failed("a"), done("a"), compensating(None), failed("a")]);
    assert_eq!(
        (at.failures("a"), at.step("a").unwrap().state),
        (1, StepState::CompensationFailing)
    );
    assert!(at.after(&Record::Compensated).is_none(), "something is half undone");
    assert!(at.after(&failed("b")).is_none(), "what was never attempted is not undone");
    let at = after(&[done("a"), compensating(None), undone("a")]);
    assert!(at.after(&undone("a")).is_none() && at.after(&failed("a")).is_none());
    assert!(after(&[done("a")]).after(&done("a")).is_none(), "once is enough");
}

#[test]
fn an_operator_s_retry_goes_back_to_the_step_and_no_further() {
    let at = after(&[done("a"), done("d"), failed("e"), stuck(), retried_from("d")]);
    assert_eq!(at.steps.iter().map(|s| s.step.as_str()).collect::<Vec<_>>(), ["a"]);
    let backward = after(&[
        done("a"),
        done("b"),
        done("c"),
        compensating(None),
        undone("c"),
        undone("b"),
        stuck(),
        retried_from("b"),
    ]);
    let states: Vec<_> = backward.steps.iter().map(|s| s.state).collect();
    assert_eq!(states, [StepState::Done, StepState::Done, StepState::Undone]);
    assert!(after(&[stuck()]).after(&retried_from("nonsense")).is_none());
}

#[test]
fn what_is_planned_where() {
    let shape = shape();
    let run = |steps: &[usize]| Plan::Run(steps.to_vec());
    let undo = |steps: &[usize]| Plan::Undo(steps.to_vec());
    let all = || vec![done("a"), done("b"), done("c"), done("d"), done("e")];
    let with = |mut records: Vec<Record>, more: &[Record]| {
        records.extend_from_slice(more);
        after(&records)
    };
    for (at, expected) in [
        (Instance::default(), run(&[0])),
        (after(&[failed("a")]), run(&[0])),
        (after(&[done("a")]), run(&[1, 2])),
        (after(&[done("a"), done("c"), failed("b")]), run(&[1])),
        (after(&all()[..3]), run(&[3])),
        (
            after(&[
                done("a"),
                done("b"),
                done("c"),
                Record::SkippedByCondition { step: "d".into(), pivot: true },
            ]),
            run(&[4]),
        ),
        (after(&all()), Plan::Append(Record::Completed)),
        (with(all(), &[Record::Completed]), Plan::Idle),
        (with(all()[..3].to_vec(), &[compensating(None)]), undo(&[1, 2])),
        (with(all()[..3].to_vec(), &[compensating(None), undone("b")]), undo(&[2])),
        (with(all()[..3].to_vec(), &[compensating(None), undone("b"), undone("c")]), undo(&[0])),
        (
            with(all()[..1].to_vec(), &[compensating(None), undone("a")]),
            Plan::Append(Record::Compensated),
        ),
        (after(&[compensating(None)]), Plan::Append(Record::Compensated)),
        (after(&[stuck()]), Plan::Idle),
    ] {
        assert_eq!(plan(&shape, &at, when(false)), expected, "{at:?}");
    }
    let unknown = after(&[done("z")]);
    assert!(matches!(plan(&shape, &unknown, when(false)), Plan::Append(Record::Stuck { .. })));
    assert!(matches!(
        plan(&shape, &after(&[done("a")]), when(true)),
        Plan::Append(Record::CompensationStarted { .. })
    ));
    assert_eq!(
        plan(&shape, &after(&all()[..4]), when(true)),
        run(&[4]),
        "past its pivot no deadline counts"
    );
}

#[test]
fn what_follows_from_a_failure() {
    let shape = shape();
    let of = |step: usize, at: &Instance, failure: &StepFailure| {
        let record = after_failure(&shape.steps[step], at, failure, 100, |wait| wait / 2);
        assert!(at.after(&record).is_some(), "what follows applies");
        record
    };
    let retry = StepFailure::Retry("no".into());
    let (fresh, again) = (Instance::default(), after(&[failed("a")]));
    let first = of(0, &fresh, &retry);
    assert!(
        matches!(first, Record::Failed { attempt: 1, wait_us: 500_000, retry_at_us: 500_100, .. }),
        "{first:?}"
    );
    let waiting = fresh.after(&first).unwrap();
    let at = |now_us| plan(&shape, &waiting, When { now_us, overdue: false });
    assert_eq!(at(500_099), Plan::Wait(Duration::from_micros(1)), "whatever else drives the saga");
    assert_eq!(at(500_100), Plan::Run(vec![0]));
    assert!(
        matches!(of(0, &again, &retry), Record::CompensationStarted { .. }),
        "two attempts are its policy"
    );
    assert!(matches!(
        of(0, &fresh, &StepFailure::Abort("no".into())),
        Record::CompensationStarted { .. }
    ));
    assert!(matches!(of(0, &fresh, &StepFailure::Stop("no".into())), Record::Stuck { .. }));
    let undoing = after(&[done("a"), compensating(None), failed("a")]);
    assert!(
        matches!(of(0, &undoing, &retry), Record::Stuck { .. }),
        "a compensation never gives up silently"
    );
    assert!(matches!(of(0, &undoing, &StepFailure::Abort("no".into())), Record::Stuck { .. }));
    let past = after(&[done("a"), done("b"), done("c"), done("d")]);
    assert!(matches!(of(4, &past, &retry), Record::Failed { .. }), "for ever past the pivot");
    assert!(matches!(of(4, &past, &StepFailure::Abort("no".into())), Record::Stuck { .. }));
}

#[test]
fn what_is_recorded_after_a_crash() {
    let shape = shape();
    let undoing = |more: &[Record]| after(&[&[done("a"), compensating(None)], more].concat());
    let crashed = |record: &Record, expected: &str, pivot: bool| match record {
        Record::Stuck { step: Some(at), reason, pivot: is_pivot } => {
            at == expected && *is_pivot == pivot && reason.starts_with("crashed")
        }
        _ => false,
    };
    for (step, at, expected) in [
        (0, Instance::default(), 1),
        (0, after(&[attempt_started("a", 1)]), 2),
        (0, after(&[attempt_started("a", 1), attempt_started("a", 2)]), 3),
        (0, after(&[attempt_started("a", 4)]), 5),
        (0, after(&[attempt_started("a", 2), failed("a")]), 1),
        (0, after(&[attempt_started("a", 3), stuck(), resumed()]), 1),
        (4, after(&[attempt_started("d", 3), done("d")]), 1),
        (0, undoing(&[]), 1),
        (0, undoing(&[attempt_started("a", 1)]), 2),
        (0, undoing(&[attempt_started("a", 1), failed("a")]), 1),
        (0, after(&[attempt_started("a", 2), done("a"), compensating(None)]), 1),
    ] {
        let record = after_crash(&shape.steps[step], &at);
        assert_eq!(record, attempt_started(&shape.steps[step].name, expected), "{at:?}");
        assert_eq!(
            at.after(&record)
                .map(|next| (next.state, next.unfinished_attempts(&shape.steps[step].name))),
            Some((at.state, expected))
        );
    }
    let often = after(&[done("a"), done("b"), done("c"), attempt_started("d", 5)]);
    let record = after_crash(&shape.steps[3], &often);
    assert!(crashed(&record, "d", true), "{record:?}");
    let record = after_crash(&shape.steps[0], &undoing(&[attempt_started("a", 5)]));
    assert!(crashed(&record, "a", false), "{record:?}");
    for at in [after(&[stuck()]), after(&[Record::Completed]), undoing(&[undone("a")])] {
        assert!(at.after(&attempt_started("a", 1)).is_none(), "{at:?}");
    }
}

#[test]
fn a_pivot_that_is_skipped_counts_as_done() {
    let before = [done("a"), done("b"), done("c")];
    let at_pivot = after(&[&before[..], &[stuck_at("d", true)]].concat());
    assert!(
        !at_pivot.past_pivot() && at_pivot.after(&compensating(Some(ann()))).is_some(),
        "until then there is a way back"
    );
    assert!(at_pivot.after(&skipped("e")).is_none(), "only where it is stuck");
    let skipped = at_pivot.after(&skipped("d")).unwrap();
    assert!(
        skipped.past_pivot() && skipped.after(&compensating(Some(ann()))).is_none(),
        "{skipped:?}"
    );
    assert_eq!(plan(&shape(), &skipped, when(true)), Plan::Run(vec![4]), "no deadline counts");
}

#[test]
fn a_pivot_that_is_done_again_leaves_no_way_back() {
    let stuck_behind = after(&[done("a"), done("b"), done("c"), done("d"), stuck_at("e", false)]);
    let again = stuck_behind.after(&Record::RetriedFrom { step: "d".into(), by: ann() }).unwrap();
    assert_eq!(plan(&shape(), &again, when(true)), Plan::Run(vec![3]), "no deadline counts");
    assert!(
        again.past_pivot()
            && again.after(&compensating(None)).is_none()
            && again.after(&compensating(Some(ann()))).is_none()
    );
    let no = StepFailure::Abort("no".into());
    let record = after_failure(&shape().steps[3], &again, &no, 0, |wait| wait);
    assert!(matches!(record, Record::Stuck { .. }), "{record:?}");
}

#[test]
fn a_saga_is_stuck_where_its_definition_has_lost_a_compensation() {
    let mut without = shape();
    without.steps[0].compensates = false;
    for records in
        [vec![done("a"), compensating(None)], vec![done("a"), compensating(None), failed("a")]]
    {
        let back = after(&records);
        let Plan::Append(record) = plan(&without, &back, when(false)) else { panic!("{back:?}") };
        assert!(
            matches!(&record, Record::Stuck { step: Some(step), .. } if step == "a"),
            "{record:?}"
        );
        let stuck = back.after(&record).unwrap();
        assert_eq!(plan(&without, &stuck, when(false)), Plan::Idle);
        // The operator has undone it by hand.
        let skipped = stuck.after(&skipped("a")).unwrap();
        assert_eq!(plan(&without, &skipped, when(false)), Plan::Append(Record::Compensated));
    }
    let never = after(&[failed("a"), compensating(None)]);
    assert_eq!(plan(&without, &never, when(false)), Plan::Append(Record::Compensated));
}

#[test]
fn a_step_at_which_the_saga_was_stuck_before_its_first_attempt_can_be_attempted() {
    let stopped = after(&[stuck_at("a", false)]);
    let again = stopped.after(&Record::RetriedFrom { step: "a".into(), by: ann() }).unwrap();
    assert_eq!(plan(&shape(), &again, when(false)), Plan::Run(vec![0]));
    assert!(stopped.after(&Record::RetriedFrom { step: "c".into(), by: ann() }).is_none());
}

#[test]
fn records_read_back_as_they_were_written() {
    for record in every().into_iter().chain([attempt_started("a", 1)]).chain([Record::Done {
        step: "a".into(),
        output: Json::of(&()).unwrap(),
        data: Some(Json::of(&()).unwrap()),
        pivot: false,
        compensates: true,
        attempt: 1,
    }]) {
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record, "{text}");
    }
}
