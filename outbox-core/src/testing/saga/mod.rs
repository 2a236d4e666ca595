//! For tests of users' own sagas: given these data and these failures, expect that end.
//!
//! A saga is driven by hand on the user's own store: no coordinator runs, waits between retries pass at once and are
//! counted, and a process that ends is a transaction that is dropped and a claim that somebody else takes over.
//!
//! ```text
//! let kit = SagaKit::new(&outbox, PlaceOrder::saga);
//! kit.given(order(7)).failing("charge", 2).run().await.expect_completed();
//! kit.given(order(8)).aborting("ship").run().await.expect_compensated().expect_undone(&["charge", "reserve-stock"]);
//! kit.fail_every_step(order, async |run| books_balance(run).await).await;
//! ```

mod disturbed;
mod others;
mod run;
mod script;
mod versions;

pub use others::Fate;
pub use run::SagaRun;

use crate::{
    event::{Message, SagaId},
    outbox::StoreError,
    runtime::Shutdown,
    saga::{
        Claim, Json, NewSaga, Operation, Probe, Registry, Replies, Saga, SagaAdmin, SagaReports,
        SagaSource, SagaState, Shape, Suspects, Worker, WorkerEnd,
    },
};
use others::{Arrived, Others, Reply};
use script::{Cut, Script};
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

/// Looks for a saga that is to be claimed before the kit gives up: a dropped transaction ends in moments.
const LOOKS: u32 = 2_000;
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Runs of one saga before it counts as one that does not end.
const RUNS: u32 = 10_000;
/// Records of one run that are cut at, at most.
const MOST_RECORDS: u32 = 1_000;

/// Drives sagas of one definition. No coordinator may run on the same store.
pub struct SagaKit<S: SagaSource, D> {
    store: S,
    make: Box<dyn Fn() -> Saga<D, S::Tx> + Send + Sync>,
    shape: Shape,
    replies: HashMap<String, Reply>,
    beside: Option<AddVersion<S>>,
}

/// A saga that is about to be driven.
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
            beside: None,
        }
    }

    /// Begins a test with a saga's data.
    pub fn given(&self, data: D) -> Given<'_, S, D> {
        Given {
            kit: self,
            data,
            script: Script::with(Others::with(self.replies.clone(), &self.shape)),
        }
    }

    /// Runs a saga for each step, in which that step says that it never will. What was done before must be undone; past
    /// the pivot the saga must be stuck there. `data` is given a number that is new for each saga.
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

    /// Runs a saga for each compensation, which fails until its policy gives up. The saga must be stuck there, and must be
    /// compensated after an operator has let it go on.
    ///
    /// # Panics
    /// When a saga ends otherwise; and when the check does, which is run at the end.
    pub async fn fail_every_compensation(
        &self,
        mut data: impl FnMut(i64) -> D,
        mut check: impl AsyncFnMut(&SagaRun),
    ) {
        let last = self.last_that_turns_back();
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

    /// Runs sagas in which the process ends with the work of a step done and its record not committed, at each step and
    /// each compensation in turn: all of them are tried again.
    ///
    /// # Panics
    /// When a saga ends otherwise than without it; and when the check does.
    pub async fn repeat_every_step(
        &self,
        data: impl FnMut(i64) -> D,
        check: impl AsyncFnMut(&SagaRun),
    ) {
        self.cut_everywhere(Cut::Written, data, check).await;
    }

    /// Runs sagas in which the process ends right after a record was committed, at each record in turn, on the way
    /// forward and on the way back.
    ///
    /// # Panics
    /// When a saga ends otherwise than without it; and when the check does.
    pub async fn cut_at_every_record(
        &self,
        data: impl FnMut(i64) -> D,
        check: impl AsyncFnMut(&SagaRun),
    ) {
        self.cut_everywhere(Cut::Committed, data, check).await;
    }

    async fn cut_everywhere(
        &self,
        cut: Cut,
        mut data: impl FnMut(i64) -> D,
        mut check: impl AsyncFnMut(&SagaRun),
    ) {
        let last = self.last_that_turns_back();
        let mut n = 0;
        for turns_back in [false, true] {
            for record in 0..MOST_RECORDS {
                n += 1;
                let mut given = self.given(data(n));
                if turns_back {
                    given = given.aborting(&last);
                }
                given.script.cut = Some((cut, record));
                let (run, was_cut) = given.run_to_end().await;
                let expected =
                    if turns_back { SagaState::Compensated } else { SagaState::Completed };
                assert_eq!(run.state(), expected, "{cut:?} at record {record}: {:?}", run.instance);
                check(&run).await;
                if !was_cut {
                    break;
                }
            }
        }
    }

    /// The last step whose failure turns a saga back: the pivot, or the last one.
    fn last_that_turns_back(&self) -> Arc<str> {
        let pivot = self.shape.steps.iter().find(|step| step.pivot);
        pivot
            .or(self.shape.steps.last())
            .map(|step| Arc::clone(&step.name))
            .expect("a definition has a step")
    }

    /// Whether the pivot is before the step of a number, from 1.
    fn past_pivot(&self, n: i64) -> bool {
        let before = usize::try_from(n - 1).unwrap_or(0);
        self.shape.steps[..before].iter().any(|step| step.pivot)
    }

    /// Lets a stuck saga go on, without failures.
    async fn resumed(&self, run: &SagaRun) -> SagaRun {
        let decision = crate::admin::Decision::new("the test", "it goes on");
        let done = self.store.operate(run.id, &Operation::Resume, &decision).await;
        assert!(done.expect("the store does what an operator wants"), "the saga is stuck");
        self.drive(run.id, Script::with(run.others.clone())).await.0
    }

    /// Carries a saga until it rests; tells whether it was cut off on the way.
    async fn drive(&self, id: SagaId, script: Script) -> (SagaRun, bool) {
        let script = Arc::new(Mutex::new(script));
        let mut registry = Registry::new();
        registry.add((self.make)());
        let known = registry.known();
        let probe: Probe = Arc::new({
            let script = Arc::clone(&script);
            move |moment| script.lock().unwrap_or_else(PoisonError::into_inner).strike(moment)
        });
        let worker = self.worker(registry, Some(probe));
        let beside = self.instance_beside(id).await;
        let script = || script.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut claim, mut waited) = (self.claim(id, &known).await, Duration::ZERO);
        for _ in 0..RUNS {
            script().lives();
            match worker.carry(&claim).await {
                WorkerEnd::Waits(wait) => {
                    // It is nobody's now, under the next even epoch, and is gone on with before it is due.
                    claim.epoch += claim.epoch % 2;
                    let answers = script().others.deliver(false);
                    if answers.is_empty() {
                        waited += wait;
                        script().others.wait();
                        let wait_us = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
                        worker.ahead_us.fetch_add(wait_us, Relaxed);
                    }
                    self.tell(id, &worker, beside.as_ref(), answers).await;
                }
                end @ (WorkerEnd::Rests | WorkerEnd::Cut) => {
                    let mut run = SagaRun::read(&self.store, id, waited).await;
                    if end == WorkerEnd::Rests || !run.state().is_active() {
                        // What is still on its way arrives, and changes nothing of the end.
                        let late = script().others.deliver(true);
                        self.tell(id, &worker, beside.as_ref(), late).await;
                        let state = run.state();
                        run = SagaRun::read(&self.store, id, waited).await;
                        assert_eq!(run.state(), state, "an answer came after the end");
                        run.others = script().others.clone();
                        run.done_by_others = run.others.done();
                        return (run, script().was_cut());
                    }
                    // Either it was given back, and is gone on with before it is due, or another one takes it over.
                    let given_back =
                        Claim { epoch: claim.epoch + claim.epoch % 2, ..claim.clone() };
                    claim = if self.opens(&given_back).await {
                        given_back
                    } else {
                        self.claim(id, &known).await
                    };
                }
                end => panic!(
                    "the saga {id} cannot be carried: {end:?}; does a coordinator run beside the test?"
                ),
            }
        }
        panic!(
            "the saga {id} does not end: {:?}",
            SagaRun::read(&self.store, id, waited).await.instance
        );
    }

    /// Makes what carries sagas of these definitions.
    fn worker(&self, registry: Registry<S::Tx>, probe: Option<Probe>) -> Arc<Worker<S>> {
        Arc::new(Worker {
            store: self.store.clone(),
            registry,
            // Whoever claims next may do so at once.
            lease: Duration::ZERO,
            step_timeout: None,
            stats: Arc::default(),
            reply_to: Some("answers".into()),
            ahead_us: AtomicI64::new(0),
            shutdown: Shutdown::default(),
            jitter: |wait| wait,
            suspects: Suspects::default(),
            on_stuck: Vec::new(),
            reports: SagaReports::default(),
            probe,
        })
    }

    /// Tells the saga what was answered; where an instance with another version runs beside, each answer comes there first.
    async fn tell(
        &self,
        id: SagaId,
        worker: &Arc<Worker<S>>,
        beside: Option<&Arc<Worker<S>>>,
        answers: Vec<Arrived>,
    ) {
        let replies = Replies::of(Arc::clone(worker));
        for Arrived { message: answer, strange } in answers {
            if strange {
                self.is_not_taken(id, &replies, &answer).await;
                continue;
            }
            if let Some(beside) = beside {
                self.is_left(beside, &answer).await;
            }
            let tx = self.store.begin().await.expect("a transaction begins");
            let taken = replies.take(&tx, &answer).await;
            assert!(
                taken.is_ok(),
                "an answer is not taken: {taken:?}; `answering(step, |command| ..)` says what others answer to a step"
            );
            self.store.commit(tx).await.expect("it commits");
        }
    }

    /// Lets an answer come that nobody has asked for: it must change nothing.
    async fn is_not_taken(&self, id: SagaId, replies: &Replies<S>, answer: &Message) {
        let before = self.store.saga_log(id).await.expect("the log is read").len();
        let tx = self.store.begin().await.expect("a transaction begins");
        match replies.take(&tx, answer).await {
            Ok(()) => self.store.commit(tx).await.expect("it commits"),
            Err(_) => self.store.rollback(tx).await.expect("it rolls back"),
        }
        let after = self.store.saga_log(id).await.expect("the log is read").len();
        assert_eq!(after, before, "an answer of a stranger was taken: {:?}", answer.headers);
    }

    /// Tells whether a saga is held as a claim says.
    async fn opens(&self, claim: &Claim) -> bool {
        let tx = self.store.begin().await.expect("a transaction begins");
        let open = self.store.open(&tx, claim).await.expect("a saga is read");
        self.store.rollback(tx).await.expect("it rolls back");
        open.is_some()
    }

    /// Claims the saga, as another process would.
    async fn claim(&self, id: SagaId, known: &[(Arc<str>, u32)]) -> Claim {
        for _ in 0..LOOKS {
            let claims = self
                .store
                .claim(known, Duration::ZERO, u32::from(u16::MAX))
                .await
                .expect("sagas are claimed");
            if let Some(claim) = claims.into_iter().find(|claim| claim.id == id) {
                return claim;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        panic!("the saga {id} is not to be claimed");
    }
}

impl<S, D> Given<'_, S, D>
where
    S: SagaSource + SagaAdmin,
    D: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Lets the first attempts at a step fail.
    #[track_caller]
    pub fn failing(mut self, step: &str, attempts: u32) -> Self {
        self.script.fail(self.known(step), false, attempts);
        self
    }

    /// Lets a step say that it never will.
    #[track_caller]
    pub fn aborting(mut self, step: &str) -> Self {
        self.script.abort(self.known(step), false);
        self
    }

    /// Lets the first attempts at a step's compensation fail.
    #[track_caller]
    pub fn failing_compensation(mut self, step: &str, attempts: u32) -> Self {
        self.script.fail(self.known(step), true, attempts);
        self
    }

    /// Starts the saga and carries it until it rests: it has ended, or is stuck.
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

    /// Fails early where a test names a step that is not there.
    #[track_caller]
    fn known<'n>(&self, step: &'n str) -> &'n str {
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
