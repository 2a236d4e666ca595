//! Commands and replies that are late, lost, repeated or out of order.

use super::{Given, RemoteFault, SagaKit, SagaRun, participants::MakeReply};
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
    /// Sets the reply to a remote step: this event, made of the command. Unless set, the
    /// participant sends the standard reply, which has no value and fits steps that await none.
    ///
    /// ```
    /// # use outbox_core::{event::OutboxEvent, saga::{SagaAdmin, SagaSource}, testing::saga::SagaKit};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Checkout { order_id: i64 }
    /// # struct PaymentCaptured { payment: i64 }
    /// # impl OutboxEvent for PaymentCaptured {
    /// #     fn meta(&self) -> outbox_core::event::EventMeta<'_> { outbox_core::event::EventMeta::new("payment.captured") }
    /// #     fn payload(&self) -> Result<bytes::Bytes, outbox_core::event::EncodeError> { Ok("{}".into()) }
    /// # }
    /// # async fn example<S: SagaSource + SagaAdmin>(kit: SagaKit<S, Checkout>) {
    /// let kit = kit.replying("charge", |_command| PaymentCaptured { payment: 4711 });
    /// kit.given(Checkout { order_id: 7 }).run().await.expect_done_remotely(&["charge"]);
    /// # }
    /// ```
    ///
    /// # Panics
    /// When there is no such step.
    #[must_use]
    #[track_caller]
    pub fn replying<R>(
        mut self,
        step: &str,
        reply: impl Fn(&NewEvent) -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: OutboxEvent,
    {
        assert!(self.shape.number(step).is_some(), "`{}` has no step `{step}`", self.shape.name);
        let reply: MakeReply = Arc::new(move |command| {
            NewEvent::encode(&reply(command)).expect("the reply is encoded")
        });
        self.replies.insert(step.to_owned(), reply);
        self
    }

    /// Runs a saga for each remote step and each [`RemoteFault`], with that fault at that step. The
    /// saga must be completed or compensated, with every remote step done, or none.
    ///
    /// ```
    /// # use outbox_core::{saga::{SagaAdmin, SagaSource}, testing::saga::SagaKit};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Checkout { order_id: i64 }
    /// # async fn example<S: SagaSource + SagaAdmin>(kit: SagaKit<S, Checkout>) {
    /// kit.inject_every_fault(|order_id| Checkout { order_id }, async |run| {
    ///     println!("{:?} after {:?} of waits", run.state(), run.waited);
    /// })
    /// .await;
    /// # }
    /// ```
    ///
    /// # Panics
    /// When a saga ends otherwise; and when the check does.
    pub async fn inject_every_fault(
        &self,
        mut data: impl FnMut(i64) -> D,
        mut check: impl AsyncFnMut(&SagaRun),
    ) {
        let remote: Vec<Arc<str>> = self
            .shape
            .steps
            .iter()
            .filter(|s| s.remote.is_some())
            .map(|s| Arc::clone(&s.name))
            .collect();
        let mut n = 0;
        for step in &remote {
            for fault in RemoteFault::ALL {
                n += 1;
                let run = self.given(data(n)).with_fault(step, fault).run().await;
                self.all_or_nothing(&run, &format!("`{step}`, {fault:?}"));
                check(&run).await;
            }
        }
    }

    /// Runs a saga for each seed on a network that randomly loses, delays, repeats and reorders
    /// commands and replies. The outcome must be as with
    /// [`inject_every_fault`](Self::inject_every_fault).
    ///
    /// # Panics
    /// When a saga ends otherwise, with its seed; and when the check does.
    pub async fn inject_random_faults(
        &self,
        seeds: Range<u64>,
        mut data: impl FnMut(i64) -> D,
        mut check: impl AsyncFnMut(&SagaRun),
    ) {
        for (n, seed) in (1..).zip(seeds) {
            let run = self.given(data(n)).with_random_faults(seed).run().await;
            self.all_or_nothing(&run, &format!("seed {seed}"));
            check(&run).await;
        }
    }

    fn all_or_nothing(&self, run: &SagaRun, of: &str) {
        let remote = self.shape.steps.iter().filter(|s| s.remote.is_some());
        let mut names: Vec<&str> = remote.map(|s| &*s.name).collect();
        names.sort_unstable();
        match run.state() {
            SagaState::Completed => {
                assert_eq!(run.done_remotely, names, "{of}: {:?}", run.instance)
            }
            SagaState::Compensated => {
                let undone = |step: &String| {
                    self.shape.number(step).is_some_and(|n| self.shape.steps[n].compensates)
                };
                let left: Vec<_> = run.done_remotely.iter().filter(|step| undone(step)).collect();
                assert!(left.is_empty(), "{of}: {left:?} are left, of {:?}", run.instance);
            }
            SagaState::Stuck if self.is_rejected_past_pivot(run) => {}
            state => panic!("{of}: the saga is {state}: {:?}", run.instance),
        }
    }

    /// Tells whether the saga is stuck because a participant rejected a step past the pivot.
    fn is_rejected_past_pivot(&self, run: &SagaRun) -> bool {
        let at = run.instance.stuck_at.as_deref().and_then(|step| self.shape.number(step));
        at.is_some_and(|at| self.shape.steps[..at].iter().any(|step| step.pivot))
    }
}

impl<S, D> Given<'_, S, D>
where
    S: SagaSource + SagaAdmin,
    D: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Sets the fault of the commands for a remote step, or of the replies.
    ///
    /// ```
    /// # use outbox_core::{saga::{SagaAdmin, SagaSource}, testing::saga::{RemoteFault, SagaKit}};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Checkout { order_id: i64 }
    /// # async fn example<S: SagaSource + SagaAdmin>(kit: SagaKit<S, Checkout>) {
    /// let run = kit.given(Checkout { order_id: 7 }).with_fault("charge", RemoteFault::ReplyLost).run().await;
    /// run.expect_compensated().expect_done_remotely(&[]); // no reply in time: it is undone
    /// # }
    /// ```
    #[track_caller]
    pub fn with_fault(mut self, step: &str, fault: RemoteFault) -> Self {
        let step = self.known_step(step).to_owned();
        self.script.participants.faults.insert(step, fault);
        self
    }

    /// Sets random faults of commands and replies, from a seed.
    pub fn with_random_faults(mut self, seed: u64) -> Self {
        self.script.participants.random = Some(fastrand::Rng::with_seed(seed));
        self
    }
}
