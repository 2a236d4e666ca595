//! Entities that are marked, and those that are waited for.

use super::{after, ann, begun, done, failed, resumed, shape, stuck_at, turned, undone, when};
use crate::saga::{Held, Instance, Plan, Record, SagaState, after_held, plan};

pub(super) fn held(step: &str, since_us: i64) -> Record {
    let (entity, holder) = ("x".to_owned(), "another".to_owned());
    Record::Held { step: step.into(), entity, holder, since_us }
}

pub(super) fn locked(step: &str, entities: &[&str]) -> Record {
    Record::Locked { step: step.into(), entities: entities.iter().map(|&e| e.to_owned()).collect() }
}

fn waits(instance: &Instance) -> Vec<&str> {
    instance.waits().map(|held| held.entity.as_str()).collect()
}

#[test]
fn a_step_waits_until_something_else_is_known_of_it() {
    for (what, records, expected) in [
        ("it waits", vec![held("a", 1)], vec!["x"]),
        ("it is begun after a crash", vec![held("a", 1), begun("a", 1)], vec!["x"]),
        ("it waits once more", vec![held("a", 1), begun("a", 1), held("a", 1)], vec!["x"]),
        ("it is done", vec![held("a", 1), locked("a", &["x"]), done("a")], vec![]),
        ("it failed", vec![held("a", 1), failed("a")], vec![]),
        ("the saga turned back", vec![held("a", 1), turned(Some(ann()))], vec![]),
        ("it is stuck", vec![held("a", 1), stuck_at("a", false)], vec![]),
        ("it goes on", vec![held("a", 1), stuck_at("a", false), resumed()], vec![]),
        ("two of a group", vec![done("a"), held("b", 1), held("c", 2), done("b")], vec!["x"]),
        ("a compensation", vec![done("a"), turned(None), held("a", 1)], vec!["x"]),
        ("it is undone", vec![done("a"), turned(None), held("a", 1), undone("a")], vec![]),
    ] {
        let at = after(&records);
        assert_eq!(waits(&at), expected, "{what}");
        let text = serde_json::to_string(&at).unwrap();
        assert_eq!(serde_json::from_str::<Instance>(&text).unwrap(), at, "{what}, as it is stored");
    }
    let waited = after(&[failed("a"), held("a", 1)]);
    assert_eq!(
        (waited.failures("a"), waited.state),
        (1, SagaState::Running),
        "a wait is no failure"
    );
    assert_eq!(plan(&shape(), &waited, when(false)), Plan::Run(vec![0]), "it looks again");
    for over in [after(&[done("a")]), after(&[stuck_at("a", false)]), after(&[Record::Completed])] {
        assert!(over.after(&held("a", 1)).is_none(), "{over:?}");
    }
}

#[test]
fn what_is_marked_stays_so_until_the_end() {
    let marked = [
        locked("a", &["x", "y"]),
        done("a"),
        locked("b", &["z"]),
        done("b"),
        turned(None),
        undone("b"),
    ];
    assert_eq!(after(&marked).locks, ["x", "y", "z"]);
    let ended = after(&[&marked[..], &[undone("a"), Record::Compensated]].concat());
    assert_eq!(ended.locks, ["x", "y", "z"], "whoever writes the end knows what to give back");
    assert!(ended.after(&locked("a", &["x"])).is_none());
    assert_eq!(
        after(&[held("a", 1), turned(None)]).locks,
        [""; 0],
        "what was only waited for is not"
    );
}

#[test]
fn what_follows_where_another_saga_has_the_entity() {
    let shape = shape();
    let look = |step: usize, at: &Instance, gives_way: bool| {
        let held = Held { entity: "x".into(), holder: "another".into(), since_us: 7 };
        let record = after_held(&shape.steps[step], at, held, gives_way);
        assert!(
            record.as_ref().is_none_or(|record| at.after(record).is_some()),
            "what follows applies: {record:?}"
        );
        record
    };
    let fresh = Instance::default();
    assert_eq!(look(0, &fresh, false), Some(held("a", 7)));
    assert_eq!(look(0, &after(&[held("a", 1)]), false), None, "it is written down once");
    let after_crash = after(&[held("a", 1), begun("a", 1)]);
    assert_eq!(look(0, &after_crash, false), Some(held("a", 7)), "a look that ended is no crash");
    assert_eq!(after_crash.after(&held("a", 1)).map(|at| at.begun("a")), Some(0));
    let other = Record::Held {
        step: "a".into(),
        entity: "y".into(),
        holder: "another".into(),
        since_us: 1,
    };
    assert_eq!(
        look(0, &after(&[other]), false),
        Some(held("a", 7)),
        "it waits for something else now"
    );
    for waits in [fresh, after(&[held("a", 1)])] {
        assert!(matches!(look(0, &waits, true), Some(Record::TurnedBack { by: None, .. })));
    }
    let back = after(&[done("a"), turned(None)]);
    assert!(
        matches!(look(0, &back, true), Some(Record::Stuck { .. })),
        "a compensation does not give up silently"
    );
    let past = after(&[done("a"), done("b"), done("c"), done("d")]);
    assert!(matches!(look(4, &past, true), Some(Record::Stuck { .. })), "there is no way back");
}
