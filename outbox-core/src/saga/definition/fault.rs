//! The faults of a definition.

use super::Shape;
use crate::event::TextRule;
use std::collections::BTreeSet;

/// The rule for the name of a saga, of a step and of a consumer: it fits a key of every database.
const NAME: TextRule = TextRule::up_to(100);

/// A fault of a definition, or of a coordinator's settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SagaFault {
    /// A name does not fit the tables.
    #[error("the name `{0}` does not have {NAME}")]
    Name(String),
    /// Versions count from 1.
    #[error("the version of `{0}` is 0; versions count from 1")]
    Version(String),
    /// The definition has no step.
    #[error("`{0}` has no step")]
    NoStep(String),
    /// Two steps have one name, by which their progress is stored.
    #[error("two steps of `{saga}` are called `{step}`")]
    DuplicateStep {
        /// The saga.
        saga: String,
        /// The name.
        step: String,
    },
    /// A definition has one pivot at most.
    #[error("`{saga}` has two pivots, `{first}` and `{second}`")]
    TwoPivots {
        /// The saga.
        saga: String,
        /// The first pivot.
        first: String,
        /// The second one.
        second: String,
    },
    /// From its pivot on a saga only goes forward.
    #[error(
        "`{step}` of `{saga}` has a compensation and is not before the pivot: it would never run"
    )]
    CompensationPastPivot {
        /// The saga.
        saga: String,
        /// The step.
        step: String,
    },
    /// A step of a parallel group has a setting that no such step may have.
    #[error("`{step}` of `{saga}` is in a parallel group, where no step is {what}")]
    InGroup {
        /// The saga.
        saga: String,
        /// The step.
        step: String,
        /// What such a step may not be.
        what: &'static str,
    },
    /// A time limit of zero, in which no attempt could succeed.
    #[error("the {what} of `{of}` is zero")]
    ZeroDuration {
        /// Timeout or deadline.
        what: &'static str,
        /// The saga or step that has it.
        of: String,
    },
    /// A remote step without a timeout: the saga would wait for a missing reply for ever.
    #[error(
        "`{step}` of `{saga}` is a remote step and does not say how long its reply is awaited: set its timeout"
    )]
    NoTimeout {
        /// The saga.
        saga: String,
        /// The step.
        step: String,
    },
    /// A source that no service can have.
    #[error(
        "`{step}` of `{saga}` takes replies from a source that does not have {}",
        TextRule::ATTRIBUTE
    )]
    Source {
        /// The saga.
        saga: String,
        /// The step.
        step: String,
    },
    /// The coordinator has no topic for the replies to remote steps.
    #[error("`{0}` has remote steps, and no topic for their replies is set: set `reply_to`")]
    NoReplyTo(String),
    /// Two definitions have one name and version.
    #[error("`{name}` version {version} is registered twice")]
    DuplicateSaga {
        /// The saga.
        name: String,
        /// The version.
        version: u32,
    },
    /// Two sagas have one type of data, by which a start finds its saga.
    #[error(
        "`{first}` and `{second}` have the same type of data, so that a start cannot tell them apart"
    )]
    SameData {
        /// A saga.
        first: String,
        /// Another one.
        second: String,
    },
    /// A coordinator's setting is out of range.
    #[error("{0}")]
    Setting(String),
}

/// Finds all faults of a definition.
pub(super) fn faults(shape: &Shape) -> Vec<SagaFault> {
    let saga = || shape.name.to_string();
    let mut faults = Vec::new();
    let names = std::iter::once(&shape.name).chain(shape.steps.iter().map(|s| &s.name));
    for name in names.chain(shape.steps.iter().filter_map(|s| s.group.as_ref())) {
        if !NAME.allows(name) {
            faults.push(SagaFault::Name(name.to_string()));
        }
    }
    if shape.version == 0 {
        faults.push(SagaFault::Version(saga()));
    }
    if shape.steps.is_empty() {
        faults.push(SagaFault::NoStep(saga()));
    }
    if shape.deadline.is_some_and(|d| d.is_zero()) {
        faults.push(SagaFault::ZeroDuration { what: "deadline", of: saga() });
    }
    let mut seen = BTreeSet::new();
    let mut pivot: Option<String> = None;
    for step in &shape.steps {
        let name = || step.name.to_string();
        if !seen.insert(&step.name) {
            faults.push(SagaFault::DuplicateStep { saga: saga(), step: name() });
        }
        if step.timeout.is_some_and(|t| t.is_zero()) {
            faults.push(SagaFault::ZeroDuration { what: "timeout", of: name() });
        }
        let consumer = step.remote.and_then(|remote| remote.consumer);
        if let Some(consumer) = consumer.filter(|name| !NAME.allows(name)) {
            faults.push(SagaFault::Name(consumer.to_owned()));
        }
        if step
            .remote
            .and_then(|remote| remote.from_source)
            .is_some_and(|source| !TextRule::ATTRIBUTE.allows(source))
        {
            faults.push(SagaFault::Source { saga: saga(), step: name() });
        }
        if step.remote.is_some() && step.timeout.is_none() {
            faults.push(SagaFault::NoTimeout { saga: saga(), step: name() });
        }
        if step.group.is_some() {
            for (is, what) in
                [(step.pivot, "the pivot"), (step.conditional, "skipped by a condition")]
            {
                if is {
                    faults.push(SagaFault::InGroup { saga: saga(), step: name(), what });
                }
            }
        }
        match &pivot {
            Some(first) if step.pivot => {
                faults.push(SagaFault::TwoPivots {
                    saga: saga(),
                    first: first.clone(),
                    second: name(),
                });
            }
            None if step.pivot => pivot = Some(name()),
            _ => {}
        }
        if pivot.is_some() && step.compensates {
            faults.push(SagaFault::CompensationPastPivot { saga: saga(), step: name() });
        }
    }
    faults
}
