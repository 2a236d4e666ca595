//! What is written of a saga in one transaction: pure.

use crate::saga::{
    definition::{Hook, Shape},
    plan::{Plan, When, plan},
    record::Record,
    state::Instance,
    store::{Due, OpenSaga},
};
use std::time::Duration;

/// Records with those that follow from them at once, and what they come to.
pub(super) struct Composed {
    pub(super) instance: Instance,
    pub(super) records: Vec<Record>,
    /// When the saga is to be looked at again.
    pub(super) due: Due,
}

/// The steps that have found what they need held by other sagas just now, and when the first of them looks again.
#[derive(Default)]
pub(super) struct Looks {
    held: Vec<usize>,
    next: Option<Duration>,
}

impl Looks {
    pub(super) fn add(&mut self, step: usize, wait: Duration) {
        self.held.push(step);
        self.next = Some(self.next.map_or(wait, |next| next.min(wait)));
    }

    /// Looks at the saga again after this time, whatever is held.
    pub(super) const fn after(wait: Duration) -> Self {
        Self { held: Vec::new(), next: Some(wait) }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.next.is_none()
    }
}

/// Puts records together; the name of one that does not fit where the saga stands is the error. A step that is held has
/// no record each time that it looks; that the saga waits is said by `looks`, and only where nothing else is due. What has a
/// hook is left to a transaction of its own, in which the hook runs.
pub(super) fn compose(
    shape: &Shape,
    open: &OpenSaga,
    mut records: Vec<Record>,
    looks: &Looks,
    lease: Duration,
    has: impl Fn(Hook) -> bool,
) -> Result<Composed, &'static str> {
    let mut instance = open.instance.after_all(&records)?;
    let when = When { overdue: false, ..open.when };
    let next = loop {
        match plan(shape, &instance, when) {
            Plan::Note(next) if Hook::of(&next).is_some_and(&has) => break Plan::Note(next),
            Plan::Note(next) => match instance.after(&next) {
                Some(after) => {
                    instance = after;
                    records.push(next);
                }
                None => break Plan::Rest,
            },
            next => break next,
        }
    };
    let goes_on = instance.state.is_active();
    let due = match (looks.next, next) {
        _ if !goes_on => Due::Never,
        (_, Plan::Wait(wait)) => Due::After(wait),
        (Some(look), Plan::Note(_)) => Due::After(look),
        // What is held counts as due, and hides what else is waited for.
        (Some(look), Plan::Run(steps) | Plan::Undo(steps))
            if steps.iter().all(|step| looks.held.contains(step)) =>
        {
            Due::After(first_wait(&instance, when.now_us).map_or(look, |wait| wait.min(look)))
        }
        _ => Due::Held(lease),
    };
    Ok(Composed { instance, records, due })
}

/// The time until the first step may be tried again, or its answer is late.
fn first_wait(instance: &Instance, now_us: i64) -> Option<Duration> {
    let left = instance.steps.iter().map(|known| known.waits_until_us().saturating_sub(now_us));
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
    fn a_step_that_is_held_does_not_keep_the_others_of_its_group_from_their_time() {
        let saga = Saga::<(), ()>::builder("s", 1)
            .parallel("g")
            .branch("a", branch)
            .branch("b", branch)
            .build();
        let held =
            Record::Held { step: "a".into(), entity: "x".into(), holder: "y".into(), since_us: 0 };
        let rests = Record::Failed {
            step: "b".into(),
            attempt: 1,
            error: "no".into(),
            wait_us: 40,
            until_us: 50,
        };
        let open = |records: &[Record]| OpenSaga {
            correlation: "c".into(),
            instance: Instance::default().after_all(records).unwrap(),
            data: Json::null(),
            seq: 1,
            when: When { now_us: 10, overdue: false },
        };
        let due = |open: &OpenSaga, records, look| {
            let mut looks = Looks::default();
            looks.add(0, Duration::from_micros(look));
            compose(saga.shape(), open, records, &looks, Duration::ZERO, |_| false)
                .map(|composed| composed.due)
        };
        let after = |us| Ok(Due::After(Duration::from_micros(us)));
        let done = Record::LeftOut { step: "b".into(), pivot: false };
        assert_eq!(due(&open(&[done]), vec![held.clone()], 7), after(7), "its own look");
        assert_eq!(
            due(&open(&[]), vec![held.clone()], 7),
            Ok(Due::Held(Duration::ZERO)),
            "the other one was not tried"
        );
        assert_eq!(
            due(&open(&[]), vec![held.clone(), rests.clone()], 90),
            after(40),
            "the other one's rest"
        );
        assert_eq!(due(&open(&[held, rests]), Vec::new(), 90), after(40), "at a later look too");
    }
}
