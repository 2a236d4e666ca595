//! Answers that are late, lost, repeated or out of order.

use super::{Fate, Given, SagaKit, SagaRun, others::Reply};
use crate::{
    event::{NewEvent, OutboxEvent},
    saga::{SagaAdmin, SagaSource, SagaState},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{ops::Range, sync::Arc};

impl<S, D> SagaKit<S, D>
where
    S: SagaSource + SagaAdmin,
    D: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Says how a step that others are asked to do is answered: with this event, made of the command. Unless set, such a
    /// step is answered without a value, which is only for steps that await none.
    ///
    /// # Panics
    /// When there is no such step.
    #[must_use]
    #[track_caller]
    pub fn answering<R>(
        mut self,
        step: &str,
        reply: impl Fn(&NewEvent) -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: OutboxEvent,
    {
        assert!(self.shape.number(step).is_some(), "`{}` has no step `{step}`", self.shape.name);
        let reply: Reply = Arc::new(move |command| {
            NewEvent::encode(&reply(command)).expect("the answer is encoded")
        });
        self.replies.insert(step.to_owned(), reply);
        self
    }

    /// Runs sagas in which one of the steps that others are asked to do fares badly, each step in each way that there is.
    /// The saga must be completed or compensated, with every such step done, or none.
    ///
    /// # Panics
    /// When a saga ends otherwise; and when the check does.
    pub async fn disturb_every_answer(
        &self,
        mut data: impl FnMut(i64) -> D,
        mut check: impl AsyncFnMut(&SagaRun),
    ) {
        let asked: Vec<Arc<str>> = self
            .shape
            .steps
            .iter()
            .filter(|s| s.asks.is_some())
            .map(|s| Arc::clone(&s.name))
            .collect();
        let mut n = 0;
        for step in &asked {
            for fate in Fate::ALL {
                n += 1;
                let run = self.given(data(n)).faring(step, fate).run().await;
                self.all_or_nothing(&run, &format!("`{step}`, {fate:?}"));
                check(&run).await;
            }
        }
    }

    /// Runs sagas on a wire that loses, delays, repeats and reorders commands and answers by chance, one saga for each
    /// seed. What must hold is as with [`disturb_every_answer`](Self::disturb_every_answer).
    ///
    /// # Panics
    /// When a saga ends otherwise, with its seed; and when the check does.
    pub async fn leave_to_chance(
        &self,
        seeds: Range<u64>,
        mut data: impl FnMut(i64) -> D,
        mut check: impl AsyncFnMut(&SagaRun),
    ) {
        for (n, seed) in (1..).zip(seeds) {
            let run = self.given(data(n)).by_chance(seed).run().await;
            self.all_or_nothing(&run, &format!("seed {seed}"));
            check(&run).await;
        }
    }

    fn all_or_nothing(&self, run: &SagaRun, of: &str) {
        let asked = self.shape.steps.iter().filter(|s| s.asks.is_some());
        let mut names: Vec<&str> = asked.map(|s| &*s.name).collect();
        names.sort_unstable();
        match run.state() {
            SagaState::Completed => {
                assert_eq!(run.done_by_others, names, "{of}: {:?}", run.instance)
            }
            SagaState::Compensated => {
                let undone = |step: &String| {
                    self.shape.number(step).is_some_and(|n| self.shape.steps[n].compensates)
                };
                let left: Vec<_> = run.done_by_others.iter().filter(|step| undone(step)).collect();
                assert!(left.is_empty(), "{of}: {left:?} are left, of {:?}", run.instance);
            }
            SagaState::Stuck if self.refuses_past_pivot(run) => {}
            state => panic!("{of}: the saga is {state}: {:?}", run.instance),
        }
    }

    /// Whether it is stuck since a step behind the pivot was refused.
    fn refuses_past_pivot(&self, run: &SagaRun) -> bool {
        let at = run.instance.stuck_at.as_deref().and_then(|step| self.shape.number(step));
        at.is_some_and(|at| self.shape.steps[..at].iter().any(|step| step.pivot))
    }
}

impl<S, D> Given<'_, S, D>
where
    S: SagaSource + SagaAdmin,
    D: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Says how the commands for a step that others are asked to do, and the answers, fare.
    #[track_caller]
    pub fn faring(mut self, step: &str, fate: Fate) -> Self {
        let step = self.known(step).to_owned();
        self.script.others.fates.insert(step, fate);
        self
    }

    /// Lets chance, from a seed, decide how commands and answers fare.
    pub fn by_chance(mut self, seed: u64) -> Self {
        self.script.others.chance = Some(fastrand::Rng::with_seed(seed));
        self
    }
}
