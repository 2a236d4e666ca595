//! States, logs and plans, by tables and by chance.

mod asked;
mod chance;
mod held;
mod wire;

use super::{
    By, Failed, Instance, Json, Plan, Record, Saga, SagaState, Shape, StepContext, StepError,
    StepState, When, after_crash, after_failure, plan,
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
    Record::Failed { step: step.into(), attempt: 1, error: "no".into(), wait_us: 5, until_us: 0 }
}

fn undone(step: &str) -> Record {
    Record::Undone { step: step.into(), data: None, attempt: 1 }
}

fn turned(by: Option<By>) -> Record {
    Record::TurnedBack { reason: "no".into(), by }
}

fn ann() -> By {
    By { who: "ann".into(), why: "because".into() }
}

fn stuck() -> Record {
    stuck_at("a", false)
}

fn stuck_at(step: &str, pivot: bool) -> Record {
    Record::Stuck { step: Some(step.into()), reason: "no".into(), pivot }
}

fn begun(step: &str, times: u32) -> Record {
    Record::Begun { step: step.into(), times }
}

fn resumed() -> Record {
    Record::Resumed { by: ann() }
}

fn passed(step: &str) -> Record {
    Record::Passed { step: step.into(), by: ann() }
}

fn from(step: &str) -> Record {
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
    let left_out = Record::LeftOut { step: "e".into(), pivot: false };
    let ended = [Record::Completed, Record::Compensated];
    let rest = [
        done("e"),
        failed("a"),
        turned(None),
        turned(Some(ann())),
        undone("a"),
        stuck(),
        resumed(),
        from("a"),
    ];
    [started, left_out].into_iter().chain(rest).chain([passed("a")]).chain(ended).collect()
}

#[test]
fn every_state_with_every_record() {
    use SagaState::{Compensated, Compensating, Completed, Running, Stuck};
    let forward_stuck = || after(&[failed("a"), stuck()]);
    let backward_stuck = || after(&[done("a"), turned(None), stuck()]);
    let past_pivot = || after(&[done("d"), failed("a")]);
    let past_pivot_stuck = || after(&[done("d"), failed("a"), stuck()]);
    let columns = [
        "started",
        "left_out",
        "done",
        "failed",
        "turned",
        "cancel",
        "undone",
        "stuck",
        "resumed",
        "from",
        "passed",
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
            after(&[done("a"), turned(None)]),
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
        ("compensated", after(&[turned(None), Record::Compensated]), [no; 13]),
    ] {
        for ((record, column), expected) in every().iter().zip(columns).zip(expected) {
            assert_eq!(at.after(record).map(|next| next.state), expected, "{name} with {column}");
        }
    }
}

#[test]
fn a_step_counts_its_failures_until_it_is_done_and_its_undoing_anew() {
    let at = after(&[failed("a"), failed("a")]);
    assert_eq!((at.failures("a"), at.step("a").unwrap().failing_us), (2, 10));
    let at = after(&[failed("a"), failed("a"), done("a")]);
    assert_eq!((at.failures("a"), at.step("a").unwrap().state), (0, StepState::Done));
    let at = after(&[failed("a"), done("a"), turned(None), failed("a")]);
    assert_eq!((at.failures("a"), at.step("a").unwrap().state), (1, StepState::Undoing));
    assert!(at.after(&Record::Compensated).is_none(), "something is half undone");
    assert!(at.after(&failed("b")).is_none(), "what was never tried is not undone");
    let at = after(&[done("a"), turned(None), undone("a")]);
    assert!(at.after(&undone("a")).is_none() && at.after(&failed("a")).is_none());
    assert!(after(&[done("a")]).after(&done("a")).is_none(), "once is enough");
}

#[test]
fn an_operator_s_retry_goes_back_to_the_step_and_no_further() {
    let at = after(&[done("a"), done("d"), failed("e"), stuck(), from("d")]);
    assert_eq!(at.steps.iter().map(|s| s.step.as_str()).collect::<Vec<_>>(), ["a"]);
    let backward = after(&[
        done("a"),
        done("b"),
        done("c"),
        turned(None),
        undone("c"),
        undone("b"),
        stuck(),
        from("b"),
    ]);
    let states: Vec<_> = backward.steps.iter().map(|s| s.state).collect();
    assert_eq!(states, [StepState::Done, StepState::Done, StepState::Undone]);
    assert!(after(&[stuck()]).after(&from("nonsense")).is_none());
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
                Record::LeftOut { step: "d".into(), pivot: true },
            ]),
            run(&[4]),
        ),
        (after(&all()), Plan::Note(Record::Completed)),
        (with(all(), &[Record::Completed]), Plan::Rest),
        (with(all()[..3].to_vec(), &[turned(None)]), undo(&[1, 2])),
        (with(all()[..3].to_vec(), &[turned(None), undone("b")]), undo(&[2])),
        (with(all()[..3].to_vec(), &[turned(None), undone("b"), undone("c")]), undo(&[0])),
        (with(all()[..1].to_vec(), &[turned(None), undone("a")]), Plan::Note(Record::Compensated)),
        (after(&[turned(None)]), Plan::Note(Record::Compensated)),
        (after(&[stuck()]), Plan::Rest),
    ] {
        assert_eq!(plan(&shape, &at, when(false)), expected, "{at:?}");
    }
    let unknown = after(&[done("z")]);
    assert!(matches!(plan(&shape, &unknown, when(false)), Plan::Note(Record::Stuck { .. })));
    assert!(matches!(
        plan(&shape, &after(&[done("a")]), when(true)),
        Plan::Note(Record::TurnedBack { .. })
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
    let of = |step: usize, at: &Instance, failed: &Failed| {
        let record = after_failure(&shape.steps[step], at, failed, 100, |wait| wait / 2);
        assert!(at.after(&record).is_some(), "what follows applies");
        record
    };
    let retry = Failed::Retry("no".into());
    let (fresh, again) = (Instance::default(), after(&[failed("a")]));
    let first = of(0, &fresh, &retry);
    assert!(
        matches!(first, Record::Failed { attempt: 1, wait_us: 500_000, until_us: 500_100, .. }),
        "{first:?}"
    );
    let resting = fresh.after(&first).unwrap();
    let at = |now_us| plan(&shape, &resting, When { now_us, overdue: false });
    assert_eq!(at(500_099), Plan::Wait(Duration::from_micros(1)), "whatever it is looked at for");
    assert_eq!(at(500_100), Plan::Run(vec![0]));
    assert!(
        matches!(of(0, &again, &retry), Record::TurnedBack { .. }),
        "two attempts are its policy"
    );
    assert!(matches!(of(0, &fresh, &Failed::Abort("no".into())), Record::TurnedBack { .. }));
    assert!(matches!(of(0, &fresh, &Failed::Stop("no".into())), Record::Stuck { .. }));
    let undoing = after(&[done("a"), turned(None), failed("a")]);
    assert!(
        matches!(of(0, &undoing, &retry), Record::Stuck { .. }),
        "a compensation never gives up silently"
    );
    assert!(matches!(of(0, &undoing, &Failed::Abort("no".into())), Record::Stuck { .. }));
    let past = after(&[done("a"), done("b"), done("c"), done("d")]);
    assert!(matches!(of(4, &past, &retry), Record::Failed { .. }), "for ever past the pivot");
    assert!(matches!(of(4, &past, &Failed::Abort("no".into())), Record::Stuck { .. }));
}

#[test]
fn what_is_written_down_after_a_crash() {
    let shape = shape();
    let undoing = |more: &[Record]| after(&[&[done("a"), turned(None)], more].concat());
    let crashed = |record: &Record, expected: &str, pivot: bool| match record {
        Record::Stuck { step: Some(at), reason, pivot: is_pivot } => {
            at == expected && *is_pivot == pivot && reason.starts_with("crashed")
        }
        _ => false,
    };
    for (step, at, times) in [
        (0, Instance::default(), 1),
        (0, after(&[begun("a", 1)]), 2),
        (0, after(&[begun("a", 1), begun("a", 2)]), 3),
        (0, after(&[begun("a", 4)]), 5),
        (0, after(&[begun("a", 2), failed("a")]), 1),
        (0, after(&[begun("a", 3), stuck(), resumed()]), 1),
        (4, after(&[begun("d", 3), done("d")]), 1),
        (0, undoing(&[]), 1),
        (0, undoing(&[begun("a", 1)]), 2),
        (0, undoing(&[begun("a", 1), failed("a")]), 1),
        (0, after(&[begun("a", 2), done("a"), turned(None)]), 1),
    ] {
        let record = after_crash(&shape.steps[step], &at);
        assert_eq!(record, begun(&shape.steps[step].name, times), "{at:?}");
        assert_eq!(
            at.after(&record).map(|next| (next.state, next.begun(&shape.steps[step].name))),
            Some((at.state, times))
        );
    }
    let often = after(&[done("a"), done("b"), done("c"), begun("d", 5)]);
    let record = after_crash(&shape.steps[3], &often);
    assert!(crashed(&record, "d", true), "{record:?}");
    let record = after_crash(&shape.steps[0], &undoing(&[begun("a", 5)]));
    assert!(crashed(&record, "a", false), "{record:?}");
    for at in [after(&[stuck()]), after(&[Record::Completed]), undoing(&[undone("a")])] {
        assert!(at.after(&begun("a", 1)).is_none(), "{at:?}");
    }
}

#[test]
fn a_pivot_that_is_skipped_counts_as_done() {
    let before = [done("a"), done("b"), done("c")];
    let at_pivot = after(&[&before[..], &[stuck_at("d", true)]].concat());
    assert!(
        !at_pivot.past_pivot() && at_pivot.after(&turned(Some(ann()))).is_some(),
        "until then there is a way back"
    );
    assert!(at_pivot.after(&passed("e")).is_none(), "only where it is stuck");
    let skipped = at_pivot.after(&passed("d")).unwrap();
    assert!(skipped.past_pivot() && skipped.after(&turned(Some(ann()))).is_none(), "{skipped:?}");
    assert_eq!(plan(&shape(), &skipped, when(true)), Plan::Run(vec![4]), "no deadline counts");
}

#[test]
fn a_pivot_that_is_done_once_more_leaves_no_way_back() {
    let stuck_behind = after(&[done("a"), done("b"), done("c"), done("d"), stuck_at("e", false)]);
    let again = stuck_behind.after(&Record::RetriedFrom { step: "d".into(), by: ann() }).unwrap();
    assert_eq!(plan(&shape(), &again, when(true)), Plan::Run(vec![3]), "no deadline counts");
    assert!(
        again.past_pivot()
            && again.after(&turned(None)).is_none()
            && again.after(&turned(Some(ann()))).is_none()
    );
    let no = Failed::Abort("no".into());
    let record = after_failure(&shape().steps[3], &again, &no, 0, |wait| wait);
    assert!(matches!(record, Record::Stuck { .. }), "{record:?}");
}

#[test]
fn a_compensation_that_a_definition_has_lost_is_missed_by_nobody() {
    let mut without = shape();
    without.steps[0].compensates = false;
    for records in [vec![done("a"), turned(None)], vec![done("a"), turned(None), failed("a")]] {
        let back = after(&records);
        let Plan::Note(record) = plan(&without, &back, when(false)) else { panic!("{back:?}") };
        assert!(
            matches!(&record, Record::Stuck { step: Some(step), .. } if step == "a"),
            "{record:?}"
        );
        let stuck = back.after(&record).unwrap();
        assert_eq!(plan(&without, &stuck, when(false)), Plan::Rest);
        // By hand.
        let passed = stuck.after(&passed("a")).unwrap();
        assert_eq!(plan(&without, &passed, when(false)), Plan::Note(Record::Compensated));
    }
    let never = after(&[failed("a"), turned(None)]);
    assert_eq!(plan(&without, &never, when(false)), Plan::Note(Record::Compensated));
}

#[test]
fn a_step_that_stopped_before_it_was_tried_can_be_tried() {
    let stopped = after(&[stuck_at("a", false)]);
    let again = stopped.after(&Record::RetriedFrom { step: "a".into(), by: ann() }).unwrap();
    assert_eq!(plan(&shape(), &again, when(false)), Plan::Run(vec![0]));
    assert!(stopped.after(&Record::RetriedFrom { step: "c".into(), by: ann() }).is_none());
}

#[test]
fn records_read_back_as_they_were_written() {
    for record in every().into_iter().chain([begun("a", 1)]).chain([Record::Done {
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
