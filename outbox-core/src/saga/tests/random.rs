//! Random logs and runs.

use super::{
    ann, attempt_started, compensating, done, failed,
    locks::{blocked, locked},
    resumed, retried_from, shape, skipped, stuck, stuck_at, undone, when,
};
use crate::saga::{
    Instance, Json, Plan, Record, SagaState, StepFailure, after_failure, plan, rebuild,
};
use proptest::prelude::*;

fn any_record() -> impl Strategy<Value = Record> {
    let name = prop::sample::select(vec!["a", "b", "c", "d", "e"]);
    (0..17_usize, name).prop_map(|(kind, step)| match kind {
        0..=2 => done(step),
        3 => failed(step),
        4 | 5 => undone(step),
        6 => compensating(Some(ann())),
        7 => stuck(),
        8 => resumed(),
        9 => retried_from(step),
        10 => skipped(step),
        11 => Record::Compensated,
        12 => attempt_started(step, 1),
        13 => stuck_at(step, step == "d"),
        14 => blocked(step, 1),
        15 => locked(step, &["x"]),
        _ => Record::Completed,
    })
}

proptest! {
    #[test]
    fn a_saga_is_rebuilt_from_its_log(records in prop::collection::vec(any_record(), 0..60)) {
        let start = Record::Started { data: Json::of(&0).unwrap() };
        let (mut at, mut log, mut data) = (Instance::default(), vec![start.clone()], start.data().cloned());
        for record in records {
            if let Some(next) = at.after(&record) {
                prop_assert!(!at.state.is_final(), "nothing follows an end");
                prop_assert!(at.past_pivot() <= (next.state != SagaState::Compensating || at.backward), "no way back past the pivot");
                data = record.data().cloned().or(data);
                at = next;
                log.push(record);
            }
        }
        prop_assert_eq!(rebuild(&log), Ok((at.clone(), data)));
        // The stored form too.
        let text = serde_json::to_string(&at).unwrap();
        prop_assert_eq!(serde_json::from_str::<Instance>(&text).unwrap(), at);
    }

    /// Whatever fails, a saga that is driven by its plans ends, or is stuck.
    #[test]
    fn every_run_ends(choices in prop::collection::vec(0..10_u8, 400)) {
        let shape = shape();
        let mut at = Instance::default();
        for choice in choices {
            match plan(&shape, &at, when(choice == 9)) {
                Plan::Idle => break,
                Plan::Wait(_) => panic!("no step is remote"),
                Plan::Append(record) => at = at.after(&record).expect("a plan applies"),
                Plan::Run(steps) | Plan::Undo(steps) => {
                    let step = &shape.steps[steps[usize::from(choice) % steps.len()]];
                    let record = match choice {
                        0 => after_failure(step, &at, &StepFailure::Abort("no".into()), 0, |w| w),
                        1..4 if !at.past_pivot() => after_failure(step, &at, &StepFailure::Retry("no".into()), -i64::MAX, |w| w),
                        _ if at.backward => undone(&step.name),
                        _ => done(&step.name),
                    };
                    at = at.after(&record).expect("what follows applies");
                }
            }
        }
        prop_assert!(!at.state.is_active(), "{:?}", at);
        let there = at.steps.iter().filter(|s| s.state.may_need_undo()).count();
        match at.state {
            SagaState::Completed => prop_assert_eq!(there, 5),
            SagaState::Compensated => prop_assert_eq!(there, 0),
            _ => {}
        }
    }
}
