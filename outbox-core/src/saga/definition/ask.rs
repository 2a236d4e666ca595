//! Steps that others are asked to do: a command goes out, and its answer is the step's output.

use super::{
    SagaBuilder, Shape, StepBuilder,
    builder::{InGroup, Joined},
    step::{StepContext, StepFn, TakesFn},
    work::{Action, Undo, answer},
};
use crate::event::{DecodeEvent, EventContract, OutboxEvent};
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;

/// A step that others are asked to do.
#[derive(Debug)]
pub struct ByOthers;

/// A step of a group that others are asked to do, behind steps that return these types.
pub struct BranchByOthers<Before>(PhantomData<fn(Before)>);

/// A step that others are asked to do, in a group or outside one.
pub trait Others {}

impl Others for ByOthers {}

impl<Before> Others for BranchByOthers<Before> {}

impl<O, Before: Joined<O>> InGroup<O> for BranchByOthers<Before> {
    type Outputs = Before::All;
}

impl<D: 'static, Tx: 'static> SagaBuilder<D, Tx> {
    /// Adds a step that another service is asked to do: what the function returns is the command, an event that goes out
    /// through the outbox in the step's transaction. Its answer is the step's output.
    ///
    /// The command carries the headers `sagaid`, `sagastep`, `sagaround`, `sagaphase` and `replyto`. The handlers of a
    /// [`Consumer`](crate::consumer::Consumer) answer by themselves. What is different from a step that is done here:
    /// - [`timeout`](StepBuilder::timeout) is how long the answer is awaited, and has to be set. When it is over the step may
    ///   be done or not: the saga turns back, and the step is undone as if it were done. Of the pivot, and after it, the
    ///   command goes out again instead, and once more after twice the time, until there is an answer.
    /// - A refusal turns the saga back, or makes it stuck past the pivot.
    /// - Whoever gets the command may answer, unless [`of`](StepBuilder::of) names who does.
    /// - It is undone by a command too ([`compensate_ask`](StepBuilder::compensate_ask)).
    /// - [`retry`](StepBuilder::retry) is for failures of the function itself.
    pub fn ask<C, F>(self, name: impl AsRef<str>, step: F) -> StepBuilder<D, Tx, (), ByOthers>
    where
        C: OutboxEvent + 'static,
        F: for<'a> StepFn<'a, D, C, StepContext<Tx>>,
    {
        self.add_asked(name.as_ref(), None, Action::ask(step))
    }
}

impl<D: 'static, Tx: 'static, O, Place> StepBuilder<D, Tx, O, Place> {
    /// Adds a step that another service is asked to do. See [`SagaBuilder::ask`].
    pub fn ask<C, F>(self, name: impl AsRef<str>, step: F) -> StepBuilder<D, Tx, (), ByOthers>
    where
        C: OutboxEvent + 'static,
        F: for<'a> StepFn<'a, D, C, StepContext<Tx>>,
    {
        self.saga.ask(name, step)
    }
}

impl<D: 'static, Tx: 'static, Place: Others> StepBuilder<D, Tx, (), Place> {
    /// Says which event is the answer that the step is done: it is the step's output. Another one becomes a dead letter.
    /// Unless set, any answer that is no refusal says that it is done.
    pub fn reply<R>(mut self) -> StepBuilder<D, Tx, R, Place>
    where
        R: DecodeEvent + Serialize + 'static,
    {
        self.work().answer = Some(answer::<R>);
        if let Some(asks) = &mut self.last().shape.asks {
            asks.replies = R::TYPES;
        }
        StepBuilder { saga: self.saga, place: PhantomData }
    }
}

impl<D: 'static, Tx: 'static, O, Place: Others> StepBuilder<D, Tx, O, Place> {
    /// Says which event is the answer that the step cannot be done, beside the plain refusal of a handler.
    pub fn reject<R: EventContract>(mut self) -> Self {
        if let Some(asks) = &mut self.last().shape.asks {
            asks.rejects = R::TYPES;
        }
        self
    }

    /// Names the consumer that answers, 1 to 100 bytes: its name, as in [`Consumer::new`](crate::consumer::Consumer::new). An answer
    /// of another one, to the command or to its undoing, is not taken, and told once in the log. Unless it is named, the answer of
    /// any consumer is taken.
    pub fn of(mut self, consumer: &'static str) -> Self {
        if let Some(asks) = &mut self.last().shape.asks {
            asks.of = Some(consumer);
        }
        self
    }

    /// Names the source of the answers, 1 to 255 bytes: that of the service whose consumer answers. An answer from elsewhere is not
    /// taken, and told once in the log.
    pub fn from_source(mut self, source: &'static str) -> Self {
        if let Some(asks) = &mut self.last().shape.asks {
            asks.from_source = Some(source);
        }
        self
    }

    /// Says how the step is undone: by a command, which goes out again until there is an answer. The function is given what
    /// the step returned, or `None` where that is not known: its answer did not come in time. The command then means that
    /// the step is not to be done any more; consumers see to that.
    pub fn compensate_ask<C, F>(mut self, undo: F) -> Self
    where
        O: DeserializeOwned + 'static,
        C: OutboxEvent + 'static,
        F: for<'a> TakesFn<'a, D, Option<O>, C, StepContext<Tx>>,
    {
        self.work().undo = Some(Undo::ask(undo));
        self.last().shape.compensates = true;
        self
    }

    /// Says how the step is undone, by a command that does not depend on what the step returned.
    pub fn compensate_ask_plain<C, F>(mut self, undo: F) -> Self
    where
        C: OutboxEvent + 'static,
        F: for<'a> StepFn<'a, D, C, StepContext<Tx>>,
    {
        self.work().undo = Some(Undo::ask_plain(undo));
        self.last().shape.compensates = true;
        self
    }
}

impl Shape {
    /// Tells whether others are asked to do one of its steps.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.steps.iter().any(|step| step.asks.is_some())
    }
}
