//! Remote steps: the saga sends a command, and the participant's reply is the step's output.

use super::{
    SagaBuilder, Shape, StepBuilder,
    builder::{AppendOutput, InGroup},
    step::{StepContext, StepFn, TakesFn},
    step_fns::{Action, Undo, decode_reply},
};
use crate::event::{DecodeEvent, EventContract, OutboxEvent};
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;

/// Marks a step that another service does.
#[derive(Debug)]
pub struct RemoteStep;

/// Marks a step of a group that another service does, behind steps that return these types.
pub struct RemoteBranch<Before>(PhantomData<fn(Before)>);

/// A remote step, in a group or outside one.
pub trait Remote {}

impl Remote for RemoteStep {}

impl<Before> Remote for RemoteBranch<Before> {}

impl<O, Before: AppendOutput<O>> InGroup<O> for RemoteBranch<Before> {
    type Outputs = Before::All;
}

impl<D: 'static, Tx: 'static> SagaBuilder<D, Tx> {
    /// Adds a step that another service does, the participant: the function returns the command, an
    /// event that the outbox publishes and that is written in the step's transaction. The
    /// participant's reply is the step's output.
    ///
    /// The command carries the headers `sagaid`, `sagastep`, `sagaround`, `sagaphase` and
    /// `replyto`. The handlers of a [`Consumer`](crate::consumer::Consumer) reply by themselves. A
    /// remote step differs from a local one:
    /// - [`timeout`](StepBuilder::timeout) is how long the reply is awaited, and must be set. After
    ///   that time the step may be done or not: the saga compensates, and the step is undone as if
    ///   it were done. For the pivot, and past it, the saga sends the command again instead, and
    ///   then after twice the time, until there is a reply.
    /// - Where the participant rejects the command, the saga compensates, or is stuck past its
    ///   pivot.
    /// - Replies of any consumer count, unless [`of`](StepBuilder::of) names one.
    /// - A command undoes it too ([`compensate_remote`](StepBuilder::compensate_remote)).
    /// - [`retry`](StepBuilder::retry) is for failures of the function itself.
    ///
    /// ```
    /// # use outbox_core::{event::OutboxEvent, saga::{SagaBuilder, StepBuilder, StepContext, StepError}};
    /// # use std::time::Duration;
    /// # struct Sql;
    /// # struct Checkout { order_id: i64 }
    /// # struct Charge { order_id: i64 }
    /// # impl OutboxEvent for Charge {
    /// #     fn meta(&self) -> outbox_core::event::EventMeta<'_> { outbox_core::event::EventMeta::new("payment.charge") }
    /// #     fn payload(&self) -> Result<bytes::Bytes, outbox_core::event::EncodeError> { Ok("{}".into()) }
    /// # }
    /// # impl Checkout {
    /// async fn charge(&mut self, _: &StepContext<Sql>) -> Result<Charge, StepError> {
    ///     Ok(Charge { order_id: self.order_id }) // the command
    /// }
    /// # }
    /// # fn example(saga: SagaBuilder<Checkout, Sql>) {
    /// # let _ =
    /// saga.remote_step("charge", Checkout::charge).of("payments").timeout(Duration::from_secs(30))
    /// # ;
    /// # }
    /// ```
    pub fn remote_step<C, F>(
        self,
        name: impl AsRef<str>,
        step: F,
    ) -> StepBuilder<D, Tx, (), RemoteStep>
    where
        C: OutboxEvent + 'static,
        F: for<'a> StepFn<'a, D, C, StepContext<Tx>>,
    {
        self.add_remote(name.as_ref(), None, Action::remote(step))
    }
}

impl<D: 'static, Tx: 'static, O, Place> StepBuilder<D, Tx, O, Place> {
    /// Adds a step that another service does. See [`SagaBuilder::remote_step`].
    pub fn remote_step<C, F>(
        self,
        name: impl AsRef<str>,
        step: F,
    ) -> StepBuilder<D, Tx, (), RemoteStep>
    where
        C: OutboxEvent + 'static,
        F: for<'a> StepFn<'a, D, C, StepContext<Tx>>,
    {
        self.saga.remote_step(name, step)
    }
}

impl<D: 'static, Tx: 'static, Place: Remote> StepBuilder<D, Tx, (), Place> {
    /// Sets the event that is the reply of success, and the step's output. A reply of another type
    /// becomes a dead letter. Unless set, any reply that is no rejection means success.
    pub fn reply<R>(mut self) -> StepBuilder<D, Tx, R, Place>
    where
        R: DecodeEvent + Serialize + 'static,
    {
        self.step_fns().decode_reply = Some(decode_reply::<R>);
        if let Some(remote) = &mut self.last().shape.remote {
            remote.replies = R::TYPES;
        }
        StepBuilder { saga: self.saga, place: PhantomData }
    }
}

impl<D: 'static, Tx: 'static, O, Place: Remote> StepBuilder<D, Tx, O, Place> {
    /// Sets the event that rejects the command, beside the standard rejection of a handler.
    pub fn reject<R: EventContract>(mut self) -> Self {
        if let Some(remote) = &mut self.last().shape.remote {
            remote.rejects = R::TYPES;
        }
        self
    }

    /// Names the consumer that replies, 1 to 100 bytes, as in
    /// [`Consumer::builder`](crate::consumer::Consumer::builder). The saga ignores a reply of another
    /// consumer, to the command or to the one that undoes it, and warns of it once in the log.
    /// Unless a consumer is named, replies of any consumer count.
    ///
    /// ```
    /// # use outbox_core::saga::{Remote, StepBuilder};
    /// # fn example<D: 'static, Tx: 'static, O, Place: Remote>(charge: StepBuilder<D, Tx, O, Place>) -> StepBuilder<D, Tx, O, Place> {
    /// charge.of("payments").from_source("/payments")
    /// # }
    /// ```
    pub fn of(mut self, consumer: &'static str) -> Self {
        if let Some(remote) = &mut self.last().shape.remote {
            remote.consumer = Some(consumer);
        }
        self
    }

    /// Names the source of the replies, 1 to 255 bytes: that of the service whose consumer replies.
    /// The saga ignores a reply from another source, and warns of it once in the log.
    pub fn from_source(mut self, source: &'static str) -> Self {
        if let Some(remote) = &mut self.last().shape.remote {
            remote.from_source = Some(source);
        }
        self
    }

    /// Sets the command that undoes the step; the saga sends it again until there is a reply. The
    /// function takes the step's output, or `None` where no reply came in time. The command then
    /// tells the participant never to do the step, which consumers ensure by themselves.
    ///
    /// ```
    /// # use outbox_core::{event::OutboxEvent, saga::{Remote, StepBuilder, StepContext, StepError}};
    /// # struct Sql;
    /// # struct Checkout { order_id: i64 }
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Captured { payment: i64 }
    /// # struct Refund { order_id: i64, payment: Option<i64> }
    /// # impl OutboxEvent for Refund {
    /// #     fn meta(&self) -> outbox_core::event::EventMeta<'_> { outbox_core::event::EventMeta::new("payment.refund") }
    /// #     fn payload(&self) -> Result<bytes::Bytes, outbox_core::event::EncodeError> { Ok("{}".into()) }
    /// # }
    /// # impl Checkout {
    /// async fn refund(&mut self, captured: Option<Captured>, _: &StepContext<Sql>) -> Result<Refund, StepError> {
    ///     Ok(Refund { order_id: self.order_id, payment: captured.map(|captured| captured.payment) })
    /// }
    /// # }
    /// # fn example<Place: Remote>(charge: StepBuilder<Checkout, Sql, Captured, Place>) -> StepBuilder<Checkout, Sql, Captured, Place> {
    /// charge.compensate_remote(Checkout::refund)
    /// # }
    /// ```
    pub fn compensate_remote<C, F>(mut self, undo: F) -> Self
    where
        O: DeserializeOwned + 'static,
        C: OutboxEvent + 'static,
        F: for<'a> TakesFn<'a, D, Option<O>, C, StepContext<Tx>>,
    {
        self.step_fns().undo = Some(Undo::remote(undo));
        self.last().shape.compensates = true;
        self
    }

    /// Sets the command that undoes the step, where it does not depend on the step's output.
    pub fn compensate_remote_without_output<C, F>(mut self, undo: F) -> Self
    where
        C: OutboxEvent + 'static,
        F: for<'a> StepFn<'a, D, C, StepContext<Tx>>,
    {
        self.step_fns().undo = Some(Undo::remote_without_output(undo));
        self.last().shape.compensates = true;
        self
    }
}

impl Shape {
    /// Tells whether one of its steps is remote.
    #[must_use]
    pub fn has_remote_steps(&self) -> bool {
        self.steps.iter().any(|step| step.remote.is_some())
    }
}
