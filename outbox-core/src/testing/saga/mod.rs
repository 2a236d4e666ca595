//! For tests of users' own sagas: given these data and these failures, expect that end.
//!
//! The kit drives a saga on the user's own store, without a coordinator: waits between retries pass
//! at once and are counted, and a crash of the process is a transaction that is dropped and a claim
//! that the next process takes over.
//!
//! ```text
//! let kit = SagaKit::new(&outbox, PlaceOrder::saga);
//! kit.given(order(7)).failing("charge", 2).run().await.expect_completed();
//! kit.given(order(8)).aborting("ship").run().await.expect_compensated().expect_undone(&["charge", "reserve-stock"]);
//! kit.fail_every_step(order, async |run| books_balance(run).await).await;
//! ```

mod faults;
mod participants;
mod run;
mod script;
mod versions;

pub use participants::RemoteFault;
pub use run::SagaRun;

use crate::{
    event::{Message, SagaId},
    outbox::StoreError,
    runtime::Shutdown,
    saga::{
        DriveOutcome, IsolationGate, Json, NewSaga, Operation, Registry, Replies, Saga, SagaAdmin,
        SagaClaim, SagaMetrics, SagaReports, SagaSource, SagaState, Shape, TestHook, Worker,
    },
};
use participants::{MakeReply, Participants, ReceivedReply};
use script::{CrashPoint, Script};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};
use versions::AddVersion;

/// Polls for the claim of a saga before the kit gives up: a dropped transaction ends in moments.
const CLAIM_POLLS: u32 = 2_000;
/// Pause between two polls.
const CLAIM_POLL: Duration = Duration::from_millis(5);
/// Runs of one saga after which it counts as one that never ends.
const RUNS: u32 = 10_000;
/// Records of one run at which the kit injects a crash, at most.
const MAX_RECORDS: u32 = 1_000;

/// Drives sagas of one definition. No coordinator may run on the same store.
///
/// ```
/// # use outbox_core::{saga::{Saga, SagaAdmin, SagaSource}, testing::saga::SagaKit};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct PlaceOrder { order_id: i64 }
/// # async fn example<S: SagaSource + SagaAdmin>(outbox: S, place_order: fn() -> Saga<PlaceOrder, S::Tx>) {
/// let kit = SagaKit::new(&outbox, place_order);
/// let order = |order_id| PlaceOrder { order_id };
/// kit.given(order(7)).failing("charge", 2).run().await.expect_completed(); // two retries
/// kit.given(order(8)).aborting("charge").run().await.expect_compensated().expect_undone(&["reserve"]);
/// # }
/// ```
pub struct SagaKit<S: SagaSource, D> {
    store: S,
    make: Box<dyn Fn() -> Saga<D, S::Tx> + Send + Sync>,
    shape: Shape,
    replies: HashMap<String, MakeReply>,
    other_version: Option<AddVersion<S>>,
}

/// A saga that the kit is about to drive.
#[must_use = "nothing happens before `run`"]
pub struct Given<'k, S: SagaSource, D> {
    kit: &'k SagaKit<S, D>,
    data: D,
    script: Script,
}

impl<S, D> SagaKit<S, D>
where
    S: SagaSource + SagaAdmin,
    D: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Makes a kit for a definition, such as `PlaceOrder::saga`.
    ///
    /// # Panics
    /// When the definition has faults.
    #[track_caller]
    pub fn new(store: &S, make: impl Fn() -> Saga<D, S::Tx> + Send + Sync + 'static) -> Self {
        let definition = make();
        assert!(
            definition.faults().is_empty(),
            "the definition has faults: {:?}",
            definition.faults()
        );
        let shape = definition.shape().clone();
        Self {
            store: store.clone(),
            shape,
            make: Box::new(make),
            replies: HashMap::new(),
            other_version: None,
        }
    }

    /// Begins a test with a saga's data.
    pub fn given(&self, data: D) -> Given<'_, S, D> {
        Given {
            kit: self,
            data,
            script: Script::with(Participants::with(self.replies.clone(), &self.shape)),
        }
    }

    /// Runs a saga for each step, in which that step aborts. What was done before must be undone;
    /// past the pivot the saga must be stuck there. `data` takes a number that is new for each
    /// saga.
    ///
    /// ```
    /// # use outbox_core::{saga::{SagaAdmin, SagaSource}, testing::saga::SagaKit};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct PlaceOrder { order_id: i64 }
    /// # async fn reserved_units() -> i64 { 0 }
    /// # async fn example<S: SagaSource + SagaAdmin>(kit: SagaKit<S, PlaceOrder>) {
    /// let order = |order_id| PlaceOrder { order_id };
    /// kit.fail_every_step(order, async |run| {
    ///     assert_eq!(reserved_units().await, 0, "with {:?}", run.instance);
    /// })
    /// .await;
    /// # }
    /// ```
    ///
    /// # Panics
    /// When a saga ends otherwise; and when the check does.
    pub async fn fail_every_step(
        &self,
        mut data: impl FnMut(i64) -> D,
        mut check: impl AsyncFnMut(&SagaRun),
    ) {
        for (n, step) in (1..).zip(&self.shape.steps) {
            let run = self.given(data(n)).aborting(&step.name).run().await;
            let reached = run.attempted(&step.name);
            let past_pivot = self.past_pivot(n);
            let expected = match (reached, past_pivot) {
                (false, _) => SagaState::Completed,
                (true, false) => SagaState::Compensated,
                (true, true) => SagaState::Stuck,
            };
            assert_eq!(run.state(), expected, "with `{}` failing: {:?}", step.name, run.instance);
            check(&run).await;
        }
    }

    /// Runs a saga for each compensation, which fails until its policy gives up. The saga must be
    /// stuck there, and compensated after an operator has resumed it.
    ///
    /// # Panics
    /// When a saga ends otherwise; and when the check does, which is run at the end.
    pub async fn fail_every_compensation(
        &self,
        mut data: impl FnMut(i64) -> D,
        mut check: impl AsyncFnMut(&SagaRun),
    ) {
        let last = self.last_that_compensates();
        for (n, step) in
            (1..).zip(&self.shape.steps).filter(|(_, step)| step.compensates && step.name != last)
        {
            let given =
                self.given(data(n)).aborting(&last).failing_compensation(&step.name, u32::MAX);
            let run = given.run().await;
            run.expect_stuck_at(&step.name);
            let run = self.resumed(&run).await;
            run.expect_compensated();
            check(&run).await;
        }
    }

    /// Runs sagas in which the process crashes before the commit of a step, at each step and each
    /// compensation in turn: the next process attempts all of them again.
    ///
    /// ```
    /// # use outbox_core::{saga::{SagaAdmin, SagaSource}, testing::saga::SagaKit};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct PlaceOrder { order_id: i64 }
    /// # async fn charges_of(_: i64) -> i64 { 1 }
    /// # async fn example<S: SagaSource + SagaAdmin>(kit: SagaKit<S, PlaceOrder>) {
    /// kit.crash_before_every_commit(|order_id| PlaceOrder { order_id }, async |run| {
    ///     let order: PlaceOrder = run.data();
    ///     assert!(charges_of(order.order_id).await <= 1, "no step has its effect twice");
    /// })
    /// .await;
    /// # }
    /// ```
    ///
    /// # Panics
    /// When a saga ends otherwise than without it; and when the check does.
    pub async fn crash_before_every_commit(
        &self,
        data: impl FnMut(i64) -> D,
        check: impl AsyncFnMut(&SagaRun),
    ) {
        self.crash_everywhere(CrashPoint::Written, data, check).await;
    }

    /// Runs sagas in which the process crashes right after a record was committed, at each record
    /// in turn, in sagas that complete and in sagas that compensate.
    ///
    /// # Panics
    /// When a saga ends otherwise than without it; and when the check does.
    pub async fn crash_after_every_record(
        &self,
        data: impl FnMut(i64) -> D,
        check: impl AsyncFnMut(&SagaRun),
    ) {
        self.crash_everywhere(CrashPoint::Committed, data, check).await;
    }

    async fn crash_everywhere(
        &self,
        point: CrashPoint,
        mut data: impl FnMut(i64) -> D,
        mut check: impl AsyncFnMut(&SagaRun),
    ) {
        let last = self.last_that_compensates();
        let mut n = 0;
        for compensates in [false, true] {
            for record in 0..MAX_RECORDS {
                n += 1;
                let mut given = self.given(data(n));
                if compensates {
                    given = given.aborting(&last);
                }
                given.script.crash_at = Some((point, record));
                let (run, has_crashed) = given.run_to_end().await;
                let expected =
                    if compensates { SagaState::Compensated } else { SagaState::Completed };
                assert_eq!(
                    run.state(),
                    expected,
                    "{point:?} at record {record}: {:?}",
                    run.instance
                );
                check(&run).await;
                if !has_crashed {
                    break;
                }
            }
        }
    }

    /// Gives the last step whose failure makes a saga compensate: the pivot, or the last one.
    fn last_that_compensates(&self) -> Arc<str> {
        let pivot = self.shape.steps.iter().find(|step| step.pivot);
        pivot
            .or(self.shape.steps.last())
            .map(|step| Arc::clone(&step.name))
            .expect("a definition has a step")
    }

    /// Tells whether the pivot is before the step of a number, from 1.
    fn past_pivot(&self, n: i64) -> bool {
        let before = usize::try_from(n - 1).unwrap_or(0);
        self.shape.steps[..before].iter().any(|step| step.pivot)
    }

    /// Resumes a stuck saga, and drives it without failures.
    async fn resumed(&self, run: &SagaRun) -> SagaRun {
        let note = crate::admin::OperatorNote::new("the test", "it goes on");
        let done = self.store.operate(run.id, &Operation::Resume, &note).await;
        assert!(done.expect("the store applies the operation"), "the saga is stuck");
        self.drive(run.id, Script::with(run.participants.clone())).await.0
    }

    /// Drives a saga until it has ended or is stuck; tells whether its process has crashed on the
    /// way.
    async fn drive(&self, id: SagaId, script: Script) -> (SagaRun, bool) {
        let script = Arc::new(Mutex::new(script));
        let mut registry = Registry::new();
        registry.add((self.make)());
        let definitions = registry.definition_ids();
        let test_hook: TestHook = Arc::new({
            let script = Arc::clone(&script);
            move |point| script.lock().unwrap_or_else(PoisonError::into_inner).at(point)
        });
        let worker = self.worker(registry, Some(test_hook));
        let other = self.other_instance(id).await;
        let script = || script.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut claim, mut waited) = (self.claim(id, &definitions).await, Duration::ZERO);
        for _ in 0..RUNS {
            script().restart();
            match worker.drive(&claim).await {
                DriveOutcome::Waiting(wait) => {
                    // The claim has ended, under the next even epoch; the kit goes on before the
                    // saga is due.
                    claim.epoch += claim.epoch % 2;
                    let replies = script().participants.deliver(false);
                    if replies.is_empty() {
                        waited += wait;
                        script().participants.wait();
                        let wait_us = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
                        worker.ahead_us.fetch_add(wait_us, Relaxed);
                    }
                    self.deliver(id, &worker, other.as_ref(), replies).await;
                }
                end @ (DriveOutcome::Idle | DriveOutcome::Crashed) => {
                    let mut run = SagaRun::read(&self.store, id, waited).await;
                    if end == DriveOutcome::Idle || !run.state().is_active() {
                        // The messages in flight arrive, and change nothing of the end.
                        let late = script().participants.deliver(true);
                        self.deliver(id, &worker, other.as_ref(), late).await;
                        let state = run.state();
                        run = SagaRun::read(&self.store, id, waited).await;
                        assert_eq!(run.state(), state, "a reply changed the end");
                        run.participants = script().participants.clone();
                        run.done_remotely = run.participants.done();
                        return (run, script().has_crashed());
                    }
                    // Either the claim has ended, and the kit goes on before the saga is due, or
                    // the next process takes over.
                    let released =
                        SagaClaim { epoch: claim.epoch + claim.epoch % 2, ..claim.clone() };
                    claim = if self.opens(&released).await {
                        released
                    } else {
                        self.claim(id, &definitions).await
                    };
                }
                end => panic!(
                    "the saga {id} cannot be driven: {end:?}; does a coordinator run beside the test?"
                ),
            }
        }
        panic!(
            "the saga {id} does not end: {:?}",
            SagaRun::read(&self.store, id, waited).await.instance
        );
    }

    /// Makes the worker that drives sagas of these definitions.
    fn worker(&self, registry: Registry<S::Tx>, test_hook: Option<TestHook>) -> Arc<Worker<S>> {
        Arc::new(Worker {
            store: self.store.clone(),
            registry,
            // The next process may claim at once.
            lease: Duration::ZERO,
            step_timeout: None,
            stats: Arc::default(),
            metrics: SagaMetrics::default(),
            heartbeats: Arc::default(),
            reply_to: Some("replies".into()),
            ahead_us: AtomicI64::new(0),
            shutdown: Shutdown::default(),
            jitter: |wait| wait,
            isolation: IsolationGate::default(),
            on_stuck: Vec::new(),
            reports: SagaReports::default(),
            test_hook,
        })
    }

    /// Delivers replies to the saga, each to the instance with the other version first, where there
    /// is one.
    async fn deliver(
        &self,
        id: SagaId,
        worker: &Arc<Worker<S>>,
        other: Option<&Arc<Worker<S>>>,
        arrived: Vec<ReceivedReply>,
    ) {
        let replies = Replies::of(Arc::clone(worker));
        for ReceivedReply { message, forged } in arrived {
            if forged {
                self.expect_ignored(id, &replies, &message).await;
                continue;
            }
            if let Some(other) = other {
                self.expect_left(other, &message).await;
            }
            let tx = self.store.begin().await.expect("a transaction begins");
            let taken = replies.take(&tx, &message).await;
            assert!(
                taken.is_ok(),
                "a reply is not taken: {taken:?}; `replying(step, |command| ..)` sets the reply to a remote step"
            );
            self.store.commit(tx).await.expect("it commits");
        }
    }

    /// Delivers a forged reply, which must change nothing.
    async fn expect_ignored(&self, id: SagaId, replies: &Replies<S>, reply: &Message) {
        let before = self.store.saga_log(id).await.expect("the log is read").len();
        let tx = self.store.begin().await.expect("a transaction begins");
        match replies.take(&tx, reply).await {
            Ok(()) => self.store.commit(tx).await.expect("it commits"),
            Err(_) => self.store.rollback(tx).await.expect("it rolls back"),
        }
        let after = self.store.saga_log(id).await.expect("the log is read").len();
        assert_eq!(after, before, "a forged reply was taken: {:?}", reply.headers);
    }

    /// Tells whether a claim opens its saga.
    async fn opens(&self, claim: &SagaClaim) -> bool {
        let tx = self.store.begin().await.expect("a transaction begins");
        let open = self.store.open(&tx, claim).await.expect("a saga is read");
        self.store.rollback(tx).await.expect("it rolls back");
        open.is_some()
    }

    /// Claims the saga, as the next process does.
    async fn claim(&self, id: SagaId, definitions: &[(Arc<str>, u32)]) -> SagaClaim {
        for _ in 0..CLAIM_POLLS {
            let claims = self
                .store
                .claim(definitions, Duration::ZERO, u32::from(u16::MAX))
                .await
                .expect("sagas are claimed");
            if let Some(claim) = claims.into_iter().find(|claim| claim.id == id) {
                return claim;
            }
            tokio::time::sleep(CLAIM_POLL).await;
        }
        panic!("the saga {id} cannot be claimed");
    }
}

impl<S, D> Given<'_, S, D>
where
    S: SagaSource + SagaAdmin,
    D: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Makes the first attempts at a step fail.
    #[track_caller]
    pub fn failing(mut self, step: &str, attempts: u32) -> Self {
        self.script.fail(self.known_step(step), false, attempts);
        self
    }

    /// Makes a step abort.
    #[track_caller]
    pub fn aborting(mut self, step: &str) -> Self {
        self.script.abort(self.known_step(step), false);
        self
    }

    /// Makes the first attempts at a step's compensation fail.
    #[track_caller]
    pub fn failing_compensation(mut self, step: &str, attempts: u32) -> Self {
        self.script.fail(self.known_step(step), true, attempts);
        self
    }

    /// Starts the saga and drives it until it has ended or is stuck.
    ///
    /// # Panics
    /// When the store fails, or the saga does not end.
    pub async fn run(self) -> SagaRun {
        self.run_to_end().await.0
    }

    async fn run_to_end(self) -> (SagaRun, bool) {
        let id = SagaId::generate();
        let saga = NewSaga {
            id,
            name: Arc::clone(&self.kit.shape.name),
            version: self.kit.shape.version,
            correlation: id.to_string().into(),
            data: Json::of(&self.data).expect("the data have a form as JSON"),
            deadline: self.kit.shape.deadline,
        };
        started(&self.kit.store, &saga).await.expect("a saga is started");
        self.kit.drive(id, self.script).await
    }

    /// Checks that the definition has a step of this name.
    #[track_caller]
    fn known_step<'n>(&self, step: &'n str) -> &'n str {
        assert!(
            self.kit.shape.number(step).is_some(),
            "`{}` has no step `{step}`",
            self.kit.shape.name
        );
        step
    }
}

async fn started<S: SagaSource>(store: &S, saga: &NewSaga) -> Result<(), StoreError> {
    let tx = store.begin().await?;
    store.start(&tx, saga).await?;
    store.commit(tx).await
}
