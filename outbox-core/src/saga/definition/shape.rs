//! A definition as data, from which coordinators plan.

use crate::{event::EventType, failure::RetryPolicy};
use std::{sync::Arc, time::Duration};

/// The replies that a remote step accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteSpec {
    /// Types of the reply that the step is done; where none is set, any reply that is no rejection
    /// says so.
    pub replies: &'static [EventType],
    /// Types of the reply that rejects the command, beside [`REJECTED`](crate::saga::REJECTED).
    pub rejects: &'static [EventType],
    /// The consumer whose replies count; any, where none is named.
    pub consumer: Option<&'static str>,
    /// The source of its replies; any, where none is named.
    pub from_source: Option<&'static str>,
}

impl RemoteSpec {
    pub(super) const ANY: Self =
        Self { replies: &[], rejects: &[], consumer: None, from_source: None };

    /// Tells whether the step accepts a reply by the consumer that the reply names and by its
    /// source.
    #[must_use]
    pub fn accepts_from(&self, consumer: Option<&str>, source: &str) -> bool {
        self.consumer.is_none_or(|named| consumer == Some(named))
            && self.from_source.is_none_or(|from| source == from)
    }
}

/// A step as data, without its functions.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StepShape {
    /// Its stable name.
    pub name: Arc<str>,
    /// Its retry policy. Past the pivot it has no end, unless one is set.
    pub retry: RetryPolicy,
    /// The retry policy of its compensation, where it has one.
    pub undo_retry: RetryPolicy,
    /// The time limit of an attempt, which is dropped then and counts as failed; for a remote step,
    /// how long the reply is awaited.
    pub timeout: Option<Duration>,
    /// Whether attempts have no time limit.
    pub no_timeout: bool,
    /// The replies that it accepts, where it is a remote step.
    pub remote: Option<RemoteSpec>,
    /// Whether the saga only goes forward after it.
    pub pivot: bool,
    /// Whether it has a compensation.
    pub compensates: bool,
    /// Whether it has a condition that may skip it.
    pub conditional: bool,
    /// The parallel group that it is in.
    pub group: Option<Arc<str>>,
    /// Whether it takes the outputs of the group before it.
    pub merges: bool,
    /// Its position: the steps of a group share one.
    pub stage: usize,
}

/// A saga's definition as data, without its functions.
///
/// ```
/// # use outbox_core::saga::Shape;
/// # fn example(shape: &Shape) {
/// for step in &shape.steps {
///     println!("{}{}", step.name, if step.pivot { " (pivot)" } else { "" });
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Shape {
    /// Its stable name.
    pub name: Arc<str>,
    /// Its version, from 1.
    pub version: u32,
    /// Time from its start after which it compensates, unless it is past its pivot.
    pub deadline: Option<Duration>,
    /// Its steps, in order.
    pub steps: Vec<StepShape>,
}

impl Shape {
    /// Finds a step's number by its name.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|s| &*s.name == name)
    }

    /// Gives the numbers of the steps of a stage.
    pub fn of_stage(&self, stage: usize) -> impl Iterator<Item = usize> {
        (0..self.steps.len()).filter(move |n| self.steps[*n].stage == stage)
    }
}
