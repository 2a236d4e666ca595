//! The builder of a definition. `#[saga]` writes nothing else.

use super::{
    RemoteSpec, Saga, Shape, StepShape,
    fault::faults,
    hooks::{Hook, Hooks},
    remote::RemoteBranch,
    step::{BranchFn, StepContext, StepFn, TakesFn},
    step_fns::{Action, StepFns, Undo, with_value, without_value},
};
use crate::{event::OutboxEvent, failure::RetryPolicy};
use serde::{Serialize, de::DeserializeOwned};
use std::{marker::PhantomData, sync::Arc, time::Duration};

/// Attempts of a step before the pivot unless set: enough for a deadlock and a restart of the
/// database or service that it calls.
const ATTEMPTS: u32 = 4;
/// Attempts of a compensation unless set: with a wait doubling from 1 s, about a quarter of an
/// hour.
const UNDO_ATTEMPTS: u32 = 10;
/// First wait of both.
const BACKOFF: Duration = Duration::from_secs(1);

/// A definition that has no step yet. See [`Saga::builder`].
///
/// ```
/// # use outbox_core::saga::{Saga, StepContext, StepError};
/// # struct Sql;
/// # #[derive(serde::Serialize, serde::Deserialize)] struct PlaceOrder { order_id: i64 }
/// # impl PlaceOrder {
/// #     async fn reserve(&mut self, _: &StepContext<Sql>) -> Result<i64, StepError> { Ok(self.order_id) }
/// #     async fn release(&mut self, _: i64, _: &StepContext<Sql>) -> Result<(), StepError> { Ok(()) }
/// #     async fn charge(&mut self, _: &StepContext<Sql>) -> Result<(), StepError> { Ok(()) }
/// #     async fn ship(&mut self, _: &StepContext<Sql>) -> Result<(), StepError> { Ok(()) }
/// # }
/// let saga: Saga<PlaceOrder, Sql> = Saga::builder("place-order", 1)
///     .step("reserve", PlaceOrder::reserve).compensate(PlaceOrder::release)
///     .step("charge", PlaceOrder::charge).pivot() // from here on only forward
///     .step("ship", PlaceOrder::ship)
///     .build();
/// assert!(saga.faults().is_empty());
/// ```
#[must_use = "a saga is defined by `build`"]
pub struct SagaBuilder<D, Tx> {
    name: Arc<str>,
    version: u32,
    deadline: Option<Duration>,
    steps: Vec<StepDraft>,
    step_fns: Vec<StepFns<D, Tx>>,
    hooks: Hooks<D, Tx>,
}

/// A step that is being defined.
pub(super) struct StepDraft {
    pub(super) shape: StepShape,
    retry: Option<RetryPolicy>,
}

/// A step outside a group.
#[derive(Debug)]
pub struct Single;

/// A step that runs in the saga's own database.
pub trait Local {}

impl Local for Single {}

impl<Outputs> Local for Branches<Outputs> {}

/// A step of a group whose steps so far return these types.
pub struct Branches<Outputs>(PhantomData<fn(Outputs)>);

/// A position in a group, of a step that returns `O`.
#[diagnostic::on_unimplemented(
    message = "this step is in no parallel group",
    label = "in no parallel group",
    note = "begin one with `.parallel(..)` before the group's first step"
)]
pub trait InGroup<O> {
    /// The outputs of the group's steps so far, a tuple.
    type Outputs;
}

impl<O, Outputs> InGroup<O> for Branches<Outputs> {
    type Outputs = Outputs;
}

/// A definition whose last step returns `O`; the setters are for that step.
#[must_use = "a saga is defined by `build`"]
pub struct StepBuilder<D, Tx, O, Place = Single> {
    pub(super) saga: SagaBuilder<D, Tx>,
    pub(super) place: PhantomData<fn(O, Place)>,
}

/// A definition with a group that has no step yet.
#[must_use = "a saga is defined by `build`"]
pub struct GroupBuilder<D, Tx> {
    saga: SagaBuilder<D, Tx>,
    group: Arc<str>,
}

/// Appends one type to the outputs of a group.
pub trait AppendOutput<O> {
    /// All outputs, a tuple.
    type All;
}

macro_rules! append_output {
    ($($ty:ident)*) => {
        impl<$($ty,)* O> AppendOutput<O> for ($($ty,)*) {
            type All = ($($ty,)* O,);
        }
    };
}
append_output!();
append_output!(A);
append_output!(A B);
append_output!(A B C);
append_output!(A B C E);
append_output!(A B C E F);
append_output!(A B C E F G);
append_output!(A B C E F G H);

impl<D, Tx> SagaBuilder<D, Tx> {
    pub(super) fn new(name: String, version: u32) -> Self {
        Self {
            name: name.into(),
            version,
            deadline: None,
            steps: Vec::new(),
            step_fns: Vec::new(),
            hooks: Hooks::default(),
        }
    }

    /// Sets the time from its start after which the saga compensates, unless it is past its pivot.
    pub fn deadline(mut self, within: Duration) -> Self {
        self.deadline = Some(within);
        self
    }

    fn build(self) -> Saga<D, Tx> {
        let mut past_pivot = false;
        let steps = self.steps.into_iter().map(|draft| {
            let mut shape = draft.shape;
            shape.retry = draft.retry.unwrap_or(if past_pivot {
                RetryPolicy::default().endless()
            } else {
                RetryPolicy::attempts(ATTEMPTS, BACKOFF)
            });
            past_pivot |= shape.pivot;
            shape
        });
        let shape = Shape {
            steps: steps.collect(),
            name: self.name,
            version: self.version,
            deadline: self.deadline,
        };
        Saga { faults: faults(&shape), shape, step_fns: self.step_fns, hooks: self.hooks }
    }
}

impl<D: 'static, Tx: 'static> SagaBuilder<D, Tx> {
    /// Runs this hook in the transaction that records that the saga is completed, so that what the
    /// hook writes commits together with the end. Where the hook fails, the saga does not end, and
    /// the hook runs again every 5 s, however often it fails. The hook reads the saga's data; its
    /// context has `on_completed` as the step's name.
    pub fn on_completed<F>(mut self, hook: F) -> Self
    where
        F: for<'a> BranchFn<'a, D, (), StepContext<Tx>>,
    {
        self.hooks.set(Hook::Completed, hook);
        self
    }

    /// Runs this hook in the transaction that records that the saga is compensated, also where
    /// nothing had to be undone, as [`on_completed`](Self::on_completed) does.
    /// [`StepContext::reason`] says why the saga compensated.
    ///
    /// ```
    /// # use outbox_core::saga::{SagaBuilder, StepContext, StepError};
    /// # struct PlaceOrder;
    /// # struct Sql;
    /// # impl PlaceOrder {
    /// async fn mark_as_cancelled(&self, cx: &StepContext<Sql>) -> Result<(), StepError> {
    ///     println!("cancelled: {}", cx.reason().unwrap_or_default());
    ///     Ok(())
    /// }
    /// # }
    /// # fn example(saga: SagaBuilder<PlaceOrder, Sql>) -> SagaBuilder<PlaceOrder, Sql> {
    /// saga.on_compensated(PlaceOrder::mark_as_cancelled)
    /// # }
    /// ```
    pub fn on_compensated<F>(mut self, hook: F) -> Self
    where
        F: for<'a> BranchFn<'a, D, (), StepContext<Tx>>,
    {
        self.hooks.set(Hook::Compensated, hook);
        self
    }

    /// Runs this hook in the transaction that records that the saga is stuck;
    /// [`StepContext::reason`] says why. Where the hook fails, the coordinator logs that at ERROR,
    /// and the saga is stuck all the same, without what the hook has written.
    pub fn on_stuck<F>(mut self, hook: F) -> Self
    where
        F: for<'a> BranchFn<'a, D, (), StepContext<Tx>>,
    {
        self.hooks.set(Hook::Stuck, hook);
        self
    }

    /// Adds the next step.
    pub fn step<O, F>(self, name: impl AsRef<str>, step: F) -> StepBuilder<D, Tx, O>
    where
        O: Serialize + 'static,
        F: for<'a> StepFn<'a, D, O, StepContext<Tx>>,
    {
        self.add(name.as_ref(), None, Action::step(step))
    }

    /// Begins a group of steps that run at the same time, each in a transaction of its own.
    ///
    /// A group differs from steps in a row:
    /// - It has eight steps at most. They read the saga's data and do not change them; a step after
    ///   the group merges their outputs.
    /// - None of them is the pivot or has a condition.
    /// - Where one fails for good, the coordinator lets the others finish. Then it undoes all steps
    ///   that were done, at the same time too: it does not save what their compensations change of
    ///   the saga's data. It does not wait for replies then, but undoes remote steps as if they
    ///   were done.
    /// - An attempt at a step or a compensation does not hold the saga's row and so ends within
    ///   half of the lease, 15 s unless set, whatever its timeout.
    /// - Each step uses a connection of its own, beside those of other sagas.
    /// - After a crash the coordinator attempts one step of the group alone first
    ///   ([`after_crash`](crate::saga::after_crash)).
    ///
    /// ```
    /// # use outbox_core::saga::{Saga, StepContext, StepError};
    /// # struct Sql;
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Trip { price: i64 }
    /// # impl Trip {
    /// #     async fn flight(&self, _: &StepContext<Sql>) -> Result<i64, StepError> { Ok(200) }
    /// #     async fn hotel(&self, _: &StepContext<Sql>) -> Result<i64, StepError> { Ok(100) }
    /// async fn add_up(&mut self, (flight, hotel): (i64, i64), _: &StepContext<Sql>) -> Result<(), StepError> {
    ///     self.price = flight + hotel;
    ///     Ok(())
    /// }
    /// # }
    /// # let saga: Saga<Trip, Sql> =
    /// Saga::builder("trip", 1)
    ///     .parallel("bookings")
    ///     .branch("flight", Trip::flight)
    ///     .branch("hotel", Trip::hotel)
    ///     .merge("add-up", Trip::add_up)
    ///     .build()
    /// # ;
    /// # assert!(saga.faults().is_empty());
    /// ```
    pub fn parallel(self, group: impl AsRef<str>) -> GroupBuilder<D, Tx> {
        GroupBuilder { saga: self, group: group.as_ref().into() }
    }

    pub(super) fn add<O, Place>(
        mut self,
        name: &str,
        group: Option<Arc<str>>,
        action: Action<D, Tx>,
    ) -> StepBuilder<D, Tx, O, Place> {
        let stage = match self.steps.last() {
            Some(last) if group.is_some() && last.shape.group == group => last.shape.stage,
            Some(last) => last.shape.stage + 1,
            None => 0,
        };
        let retry = RetryPolicy::attempts(ATTEMPTS, BACKOFF);
        self.steps.push(StepDraft {
            retry: None,
            shape: StepShape {
                name: name.into(),
                retry,
                undo_retry: RetryPolicy::attempts(UNDO_ATTEMPTS, BACKOFF),
                timeout: None,
                no_timeout: false,
                remote: None,
                pivot: false,
                compensates: false,
                conditional: false,
                group,
                merges: matches!(action, Action::Merge(_)),
                stage,
            },
        });
        self.step_fns.push(StepFns { action, undo: None, decode_reply: None, skip_if: None });
        StepBuilder { saga: self, place: PhantomData }
    }

    /// Adds a remote step.
    pub(super) fn add_remote<Place>(
        self,
        name: &str,
        group: Option<Arc<str>>,
        action: Action<D, Tx>,
    ) -> StepBuilder<D, Tx, (), Place> {
        let mut step = self.add(name, group, action);
        step.last().shape.remote = Some(RemoteSpec::ANY);
        step
    }
}

impl<D: 'static, Tx: 'static, O, Place: Local> StepBuilder<D, Tx, O, Place> {
    /// Sets the compensation, which takes the step's output.
    ///
    /// ```
    /// # use outbox_core::saga::{Saga, StepContext, StepError};
    /// # struct Sql;
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct PlaceOrder;
    /// # impl PlaceOrder {
    /// async fn charge(&mut self, cx: &StepContext<Sql>) -> Result<i64, StepError> {
    /// #   let _ = cx;
    ///     Ok(4711) // the payment's id is stored
    /// }
    /// async fn refund(&mut self, payment: i64, cx: &StepContext<Sql>) -> Result<(), StepError> {
    ///     println!("refunds payment {payment}: {}", cx.reason().unwrap_or_default());
    ///     Ok(())
    /// }
    /// # }
    /// # let saga: Saga<PlaceOrder, Sql> =
    /// Saga::builder("place-order", 1).step("charge", PlaceOrder::charge).compensate(PlaceOrder::refund).build()
    /// # ;
    /// ```
    pub fn compensate<F>(mut self, compensation: F) -> Self
    where
        O: DeserializeOwned + 'static,
        F: for<'a> TakesFn<'a, D, O, (), StepContext<Tx>>,
    {
        self.step_fns().undo = Some(Undo::Local(with_value("the step's output", compensation)));
        self.last().shape.compensates = true;
        self
    }

    /// Sets a compensation that does not take the step's output.
    pub fn compensate_without_output<F>(mut self, compensation: F) -> Self
    where
        F: for<'a> StepFn<'a, D, (), StepContext<Tx>>,
    {
        self.step_fns().undo = Some(Undo::Local(without_value(compensation)));
        self.last().shape.compensates = true;
        self
    }
}

impl<D: 'static, Tx: 'static, O, Place> StepBuilder<D, Tx, O, Place> {
    /// Sets how often the coordinator retries the step: 3 times with a wait doubling from 1 s
    /// unless set, and without end past the pivot.
    ///
    /// ```
    /// # use outbox_core::saga::StepBuilder;
    /// # fn example<D: 'static, Tx: 'static, O>(step: StepBuilder<D, Tx, O>) -> StepBuilder<D, Tx, O> {
    /// step.retries(10) // eleven attempts in all
    /// # }
    /// ```
    pub fn retries(self, times: u32) -> Self {
        self.retry(RetryPolicy::attempts(times.saturating_add(1), BACKOFF))
    }

    /// Sets the retry policy of the step.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.last().retry = Some(policy);
        self
    }

    /// Sets the retry policy of the compensation: 10 attempts with a wait doubling from 1 s unless
    /// set. After the last one the saga is stuck.
    ///
    /// ```
    /// # use outbox_core::{failure::RetryPolicy, saga::StepBuilder};
    /// # fn example<D: 'static, Tx: 'static, O>(step: StepBuilder<D, Tx, O>) -> StepBuilder<D, Tx, O> {
    /// step.compensate_retry(RetryPolicy::default().endless()) // never stuck over a refund
    /// # }
    /// ```
    pub fn compensate_retry(mut self, policy: RetryPolicy) -> Self {
        self.last().shape.undo_retry = policy;
        self
    }

    /// Limits the time of an attempt at the step or at its compensation, 5 min unless set: the
    /// coordinator then drops the attempt, its transaction rolls back, and it counts as failed. For
    /// a remote step, sets how long the reply is awaited.
    pub fn timeout(mut self, within: Duration) -> Self {
        self.last().shape.timeout = Some(within);
        self
    }

    /// Sets no time limit for attempts. An attempt that never returns holds the saga, its
    /// connection and its locks for ever.
    pub fn no_timeout(mut self) -> Self {
        self.last().shape.no_timeout = true;
        self
    }

    /// Makes the step the pivot, the point of no return: once it is done, the saga only goes
    /// forward.
    ///
    /// ```
    /// # use outbox_core::saga::StepBuilder;
    /// # fn example<D: 'static, Tx: 'static, O>(ship: StepBuilder<D, Tx, O>) -> StepBuilder<D, Tx, O> {
    /// ship.pivot() // the parcel is on its way: later steps are retried without end
    /// # }
    /// ```
    pub fn pivot(mut self) -> Self {
        self.last().shape.pivot = true;
        self
    }

    /// Skips the step where this condition holds for the saga's data.
    ///
    /// ```
    /// # use outbox_core::saga::StepBuilder;
    /// # struct PlaceOrder { total: i64 }
    /// # fn example<Tx: 'static, O>(step: StepBuilder<PlaceOrder, Tx, O>) -> StepBuilder<PlaceOrder, Tx, O> {
    /// step.skip_if(|order| order.total == 0) // nothing to charge
    /// # }
    /// ```
    pub fn skip_if(mut self, condition: impl Fn(&D) -> bool + Send + Sync + 'static) -> Self {
        self.step_fns().skip_if = Some(Box::new(condition));
        self.last().shape.conditional = true;
        self
    }

    /// Adds the next step.
    pub fn step<P, F>(self, name: impl AsRef<str>, step: F) -> StepBuilder<D, Tx, P>
    where
        P: Serialize + 'static,
        F: for<'a> StepFn<'a, D, P, StepContext<Tx>>,
    {
        self.saga.step(name, step)
    }

    /// Begins a group of steps that run at the same time, each in a transaction of its own.
    pub fn parallel(self, group: impl AsRef<str>) -> GroupBuilder<D, Tx> {
        self.saga.parallel(group)
    }

    /// Sets the time from its start after which the saga compensates, unless it is past its pivot.
    pub fn deadline(mut self, within: Duration) -> Self {
        self.saga = self.saga.deadline(within);
        self
    }

    /// Runs this hook in the transaction that records that the saga is completed. See
    /// [`SagaBuilder::on_completed`].
    pub fn on_completed<F>(mut self, hook: F) -> Self
    where
        F: for<'a> BranchFn<'a, D, (), StepContext<Tx>>,
    {
        self.saga = self.saga.on_completed(hook);
        self
    }

    /// Runs this hook in the transaction that records that the saga is compensated. See
    /// [`SagaBuilder::on_compensated`].
    pub fn on_compensated<F>(mut self, hook: F) -> Self
    where
        F: for<'a> BranchFn<'a, D, (), StepContext<Tx>>,
    {
        self.saga = self.saga.on_compensated(hook);
        self
    }

    /// Runs this hook in the transaction that records that the saga is stuck. See
    /// [`SagaBuilder::on_stuck`].
    pub fn on_stuck<F>(mut self, hook: F) -> Self
    where
        F: for<'a> BranchFn<'a, D, (), StepContext<Tx>>,
    {
        self.saga = self.saga.on_stuck(hook);
        self
    }

    /// Ends the definition. [`SagasBuilder::start`](crate::saga::SagasBuilder::start) reports all
    /// of its faults at once.
    pub fn build(self) -> Saga<D, Tx> {
        self.saga.build()
    }

    pub(super) fn last(&mut self) -> &mut StepDraft {
        self.saga.steps.last_mut().expect("a step builder is made by adding a step")
    }

    pub(super) fn step_fns(&mut self) -> &mut StepFns<D, Tx> {
        self.saga.step_fns.last_mut().expect("a step builder is made by adding a step")
    }
}

impl<D: 'static, Tx: 'static> GroupBuilder<D, Tx> {
    /// Adds the group's first step.
    pub fn branch<O, F>(
        self,
        name: impl AsRef<str>,
        step: F,
    ) -> StepBuilder<D, Tx, O, Branches<(O,)>>
    where
        O: Serialize + 'static,
        F: for<'a> BranchFn<'a, D, O, StepContext<Tx>>,
    {
        self.saga.add(name.as_ref(), Some(self.group), Action::branch(step))
    }

    /// Adds the group's first step, one that another service does. See
    /// [`SagaBuilder::remote_step`].
    pub fn remote_branch<C, F>(
        self,
        name: impl AsRef<str>,
        step: F,
    ) -> StepBuilder<D, Tx, (), RemoteBranch<()>>
    where
        C: OutboxEvent + 'static,
        F: for<'a> BranchFn<'a, D, C, StepContext<Tx>>,
    {
        self.saga.add_remote(name.as_ref(), Some(self.group), Action::remote_branch(step))
    }
}

impl<D: 'static, Tx: 'static, O, Place: InGroup<O>> StepBuilder<D, Tx, O, Place> {
    /// Adds a step to the group, eight of them at most.
    pub fn branch<P, F>(
        self,
        name: impl AsRef<str>,
        step: F,
    ) -> StepBuilder<D, Tx, P, Branches<<Place::Outputs as AppendOutput<P>>::All>>
    where
        Place::Outputs: AppendOutput<P>,
        P: Serialize + 'static,
        F: for<'a> BranchFn<'a, D, P, StepContext<Tx>>,
    {
        let group = self.group();
        self.saga.add(name.as_ref(), group, Action::branch(step))
    }

    /// Adds a step to the group that another service does. See [`SagaBuilder::remote_step`].
    pub fn remote_branch<C, F>(
        self,
        name: impl AsRef<str>,
        step: F,
    ) -> StepBuilder<D, Tx, (), RemoteBranch<Place::Outputs>>
    where
        C: OutboxEvent + 'static,
        F: for<'a> BranchFn<'a, D, C, StepContext<Tx>>,
    {
        let group = self.group();
        self.saga.add_remote(name.as_ref(), group, Action::remote_branch(step))
    }

    /// Adds the step after the group, which takes the outputs of the group's steps, as a tuple in
    /// their order.
    pub fn merge<P, F>(self, name: impl AsRef<str>, step: F) -> StepBuilder<D, Tx, P>
    where
        Place::Outputs: DeserializeOwned + 'static,
        P: Serialize + 'static,
        F: for<'a> TakesFn<'a, D, Place::Outputs, P, StepContext<Tx>>,
    {
        self.saga.add(name.as_ref(), None, Action::merge(step))
    }

    fn group(&self) -> Option<Arc<str>> {
        self.saga.steps.last().and_then(|s| s.shape.group.clone())
    }
}
