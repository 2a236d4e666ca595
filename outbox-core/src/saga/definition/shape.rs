//! A definition as data: what plans are made by.

use crate::{event::EventType, failure::RetryPolicy};
use std::{sync::Arc, time::Duration};

/// What is known of a step that others are asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asks {
    /// Types of the answer that it is done; where there is none, any answer that is no refusal says so.
    pub replies: &'static [EventType],
    /// Types of the answer that it cannot be done, beside [`REJECTED`](crate::saga::REJECTED).
    pub rejects: &'static [EventType],
    /// The consumer that answers; any, where it is not said.
    pub of: Option<&'static str>,
    /// The source of its answers; any, where it is not said.
    pub from_source: Option<&'static str>,
}

impl Asks {
    pub(super) const ANY: Self = Self { replies: &[], rejects: &[], of: None, from_source: None };

    /// Tells whether an answer is from whom the step names, by the consumer that it says it is of, and its source.
    #[must_use]
    pub fn takes_from(&self, consumer: Option<&str>, source: &str) -> bool {
        self.of.is_none_or(|of| consumer == Some(of))
            && self.from_source.is_none_or(|from| source == from)
    }
}

/// What is known of a step without its functions.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StepShape {
    /// Its stable name.
    pub name: Arc<str>,
    /// How it is tried again. Past the pivot it is for ever, unless it was said otherwise.
    pub retry: RetryPolicy,
    /// How its compensation is tried again, where it has one.
    pub undo_retry: RetryPolicy,
    /// After which time an attempt is dropped, and counts as failed; for a step that others are asked to do, how long their
    /// answer is awaited.
    pub timeout: Option<Duration>,
    /// Whether an attempt may take as long as it takes.
    pub no_timeout: bool,
    /// Whether others are asked to do it, and what they may answer.
    pub asks: Option<Asks>,
    /// Whether the saga only goes forward after it.
    pub pivot: bool,
    /// Whether it has a compensation.
    pub compensates: bool,
    /// Whether it may be left out by its own condition.
    pub conditional: bool,
    /// The parallel group that it is in.
    pub group: Option<Arc<str>>,
    /// Whether it is given what the steps of the group before it returned.
    pub merges: bool,
    /// Its place: steps of one group have the same one.
    pub stage: usize,
}

/// What is known of a saga without its functions.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Shape {
    /// Its stable name.
    pub name: Arc<str>,
    /// Its version, from 1.
    pub version: u32,
    /// Time from its start after which it turns back, unless it is past its pivot.
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
