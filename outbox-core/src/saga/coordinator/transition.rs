//! The transition of a saga in one transaction: pure.

use crate::saga::{
    definition::{Hook, Shape},
    plan::{Plan, When, plan},
    record::Record,
    state::Instance,
    store::{Due, OpenSaga},
};
use std::time::Duration;

/// Records, with those that follow from them at once, and the state after them.
pub(super) struct Transition {
    pub(super) instance: Instance,
    pub(super) records: Vec<Record>,
    /// When a coordinator drives the saga next.
    pub(super) due: Due,
}

/// The steps that have just found their entities locked by other sagas, and when the first of them
/// polls again.
#[derive(Default)]
pub(super) struct LockPolls {
    blocked: Vec<usize>,
    next: Option<Duration>,
}

impl LockPolls {
    pub(super) fn add(&mut self, step: usize, wait: Duration) {
        self.blocked.push(step);
        self.next = Some(self.next.map_or(wait, |next| next.min(wait)));
    }

    /// Drives the saga again after this time, whatever step is blocked.
    pub(super) const fn after(wait: Duration) -> Self {
        Self { blocked: Vec::new(), next: Some(wait) }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.next.is_none()
    }
}

/// Applies records, and those that follow from them at once; the error is the kind of one that does
/// not apply. A blocked step writes no record at each poll: `polls` says when the saga polls again,
/// where nothing else is due before. A record with a hook is left to a transaction of its own, in
/// which the hook runs.
pub(super) fn transition(
    shape: &Shape,
    open: &OpenSaga,
    mut records: Vec<Record>,
    polls: &LockPolls,
    lease: Duration,
    has: impl Fn(Hook) -> bool,
) -> Result<Transition, &'static str> {
    let mut instance = open.instance.after_all(&records)?;
    let when = When { overdue: false, ..open.when };
    let next = loop {
        match plan(shape, &instance, when) {
            // The end with a hook is left to the next transaction. In that of the last step a
            // failing hook would roll the step back, and each of its retries would do the step
            // again.
            Plan::Append(next) if Hook::of(&next).is_some_and(&has) => break Plan::Append(next),
            Plan::Append(next) => match instance.after(&next) {
                Some(after) => {
                    instance = after;
                    records.push(next);
                }
                None => break Plan::Idle,
            },
            next => break next,
        }
    };
    let goes_on = instance.state.is_active();
    let due = match (polls.next, next) {
        _ if !goes_on => Due::Never,
        (_, Plan::Wait(wait)) => Due::After(wait),
        (Some(poll), Plan::Append(_)) => Due::After(poll),
        // A plan counts blocked steps as due, and leaves out the steps that wait.
        (Some(poll), Plan::Run(steps) | Plan::Undo(steps))
            if steps.iter().all(|step| polls.blocked.contains(step)) =>
        {
            Due::After(first_wait(&instance, when.now_us).map_or(poll, |wait| wait.min(poll)))
        }
        _ => Due::Leased(lease),
    };
    Ok(Transition { instance, records, due })
}

/// Gives the time until the first step may be attempted again, or its reply is overdue.
fn first_wait(instance: &Instance, now_us: i64) -> Option<Duration> {
    let left = instance.steps.iter().map(|known| known.wait_ends_us().saturating_sub(now_us));
    left.filter_map(|left| u64::try_from(left).ok().filter(|left| *left > 0))
        .min()
        .map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::{Json, Saga, StepContext, StepError};

    async fn branch(_: &(), _: &StepContext<()>) -> Result<(), StepError> {
        Ok(())
    }

    #[test]
    fn a_blocked_step_does_not_delay_the_others_of_its_group() {
        let saga = Saga::<(), ()>::builder("s", 1)
            .parallel("g")
            .branch("a", branch)
            .branch("b", branch)
            .build();
        let blocked = Record::BlockedOnLock {
            step: "a".into(),
            entity: "x".into(),
            holder: "y".into(),
            since_us: 0,
        };
        let failed = Record::Failed {
            step: "b".into(),
            attempt: 1,
            error: "no".into(),
            wait_us: 40,
            retry_at_us: 50,
        };
        let open = |records: &[Record]| OpenSaga {
            correlation: "c".into(),
            instance: Instance::default().after_all(records).unwrap(),
            data: Json::null(),
            seq: 1,
            when: When { now_us: 10, overdue: false },
        };
        let due = |open: &OpenSaga, records, poll| {
            let mut polls = LockPolls::default();
            polls.add(0, Duration::from_micros(poll));
            transition(saga.shape(), open, records, &polls, Duration::ZERO, |_| false)
                .map(|transition| transition.due)
        };
        let after = |us| Ok(Due::After(Duration::from_micros(us)));
        let done = Record::SkippedByCondition { step: "b".into(), pivot: false };
        assert_eq!(due(&open(&[done]), vec![blocked.clone()], 7), after(7), "its own poll");
        assert_eq!(
            due(&open(&[]), vec![blocked.clone()], 7),
            Ok(Due::Leased(Duration::ZERO)),
            "the other step was not attempted"
        );
        assert_eq!(
            due(&open(&[]), vec![blocked.clone(), failed.clone()], 90),
            after(40),
            "the wait of the other step"
        );
        assert_eq!(
            due(&open(&[blocked, failed]), Vec::new(), 90),
            after(40),
            "at a later poll too"
        );
    }
}
