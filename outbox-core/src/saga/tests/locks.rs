//! Locks that sagas hold, and locks for which they wait.

use super::{
    after, ann, attempt_started, compensating, done, failed, resumed, shape, stuck_at, undone, when,
};
use crate::saga::{BlockedOn, Instance, Plan, Record, SagaState, after_blocked, plan};

pub(super) fn blocked(step: &str, since_us: i64) -> Record {
    let (entity, holder) = ("x".to_owned(), "another".to_owned());
    Record::BlockedOnLock { step: step.into(), entity, holder, since_us }
}

pub(super) fn locked(step: &str, entities: &[&str]) -> Record {
    Record::Locked { step: step.into(), entities: entities.iter().map(|&e| e.to_owned()).collect() }
}

fn entities(instance: &Instance) -> Vec<&str> {
    instance.blocked_on().map(|blocked_on| blocked_on.entity.as_str()).collect()
}

#[test]
fn a_step_waits_until_something_else_is_known_of_it() {
    for (what, records, expected) in [
        ("it waits", vec![blocked("a", 1)], vec!["x"]),
        (
            "it is attempted after a crash",
            vec![blocked("a", 1), attempt_started("a", 1)],
            vec!["x"],
        ),
        (
            "it waits again",
            vec![blocked("a", 1), attempt_started("a", 1), blocked("a", 1)],
            vec!["x"],
        ),
        ("it is done", vec![blocked("a", 1), locked("a", &["x"]), done("a")], vec![]),
        ("it failed", vec![blocked("a", 1), failed("a")], vec![]),
        ("the saga compensates", vec![blocked("a", 1), compensating(Some(ann()))], vec![]),
        ("it is stuck", vec![blocked("a", 1), stuck_at("a", false)], vec![]),
        ("it goes on", vec![blocked("a", 1), stuck_at("a", false), resumed()], vec![]),
        ("two of a group", vec![done("a"), blocked("b", 1), blocked("c", 2), done("b")], vec!["x"]),
        ("a compensation", vec![done("a"), compensating(None), blocked("a", 1)], vec!["x"]),
        ("it is undone", vec![done("a"), compensating(None), blocked("a", 1), undone("a")], vec![]),
    ] {
        let at = after(&records);
        assert_eq!(entities(&at), expected, "{what}");
        let text = serde_json::to_string(&at).unwrap();
        assert_eq!(serde_json::from_str::<Instance>(&text).unwrap(), at, "{what}, as it is stored");
    }
    let waited = after(&[failed("a"), blocked("a", 1)]);
    assert_eq!(
        (waited.failures("a"), waited.state),
        (1, SagaState::Running),
        "a wait is no failure"
    );
    assert_eq!(plan(&shape(), &waited, when(false)), Plan::Run(vec![0]), "it polls again");
    for over in [after(&[done("a")]), after(&[stuck_at("a", false)]), after(&[Record::Completed])] {
        assert!(over.after(&blocked("a", 1)).is_none(), "{over:?}");
    }
}

#[test]
fn locks_are_held_until_the_saga_ends() {
    let records = [
        locked("a", &["x", "y"]),
        done("a"),
        locked("b", &["z"]),
        done("b"),
        compensating(None),
        undone("b"),
    ];
    assert_eq!(after(&records).locks, ["x", "y", "z"]);
    let ended = after(&[&records[..], &[undone("a"), Record::Compensated]].concat());
    assert_eq!(ended.locks, ["x", "y", "z"], "the transaction that ends the saga releases them");
    assert!(ended.after(&locked("a", &["x"])).is_none());
    assert_eq!(
        after(&[blocked("a", 1), compensating(None)]).locks,
        [""; 0],
        "a lock for which it only waited is none"
    );
}

#[test]
fn what_follows_where_another_saga_holds_the_lock() {
    let shape = shape();
    let poll = |step: usize, at: &Instance, is_victim: bool| {
        let blocked_on = BlockedOn { entity: "x".into(), holder: "another".into(), since_us: 7 };
        let record = after_blocked(&shape.steps[step], at, blocked_on, is_victim);
        assert!(
            record.as_ref().is_none_or(|record| at.after(record).is_some()),
            "what follows applies: {record:?}"
        );
        record
    };
    let fresh = Instance::default();
    assert_eq!(poll(0, &fresh, false), Some(blocked("a", 7)));
    assert_eq!(poll(0, &after(&[blocked("a", 1)]), false), None, "it is recorded once");
    let after_crash = after(&[blocked("a", 1), attempt_started("a", 1)]);
    assert_eq!(
        poll(0, &after_crash, false),
        Some(blocked("a", 7)),
        "a poll that ended is no crash"
    );
    assert_eq!(after_crash.after(&blocked("a", 1)).map(|at| at.unfinished_attempts("a")), Some(0));
    let other = Record::BlockedOnLock {
        step: "a".into(),
        entity: "y".into(),
        holder: "another".into(),
        since_us: 1,
    };
    assert_eq!(
        poll(0, &after(&[other]), false),
        Some(blocked("a", 7)),
        "it waits for something else now"
    );
    for waits in [fresh, after(&[blocked("a", 1)])] {
        assert!(matches!(
            poll(0, &waits, true),
            Some(Record::CompensationStarted { by: None, .. })
        ));
    }
    let back = after(&[done("a"), compensating(None)]);
    assert!(
        matches!(poll(0, &back, true), Some(Record::Stuck { .. })),
        "a compensation does not give up silently"
    );
    let past = after(&[done("a"), done("b"), done("c"), done("d")]);
    assert!(matches!(poll(4, &past, true), Some(Record::Stuck { .. })), "there is no way back");
}
