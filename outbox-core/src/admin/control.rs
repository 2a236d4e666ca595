//! What an operator has paused or slowed down. Rows of the database, read by relays, consumers and
//! coordinators at each renewal of their lease and on a wake.

use super::OperatorNote;
use crate::{event::Timestamp, outbox::StoreError};
use async_trait::async_trait;
use serde::{Serialize, Serializer};
use std::{fmt, str::FromStr, time::Duration};

/// What a control applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum ControlScope {
    /// A route of relays: publishes to it.
    Route,
    /// The events of a topic, on every route.
    Topic,
    /// The events of a key, on every route.
    Key,
    /// A consumer: it takes no message and claims no deferred delivery.
    Consumer,
    /// A saga by the name of its definition: coordinators claim none.
    Saga,
}

impl ControlScope {
    const ALL: [Self; 5] = [Self::Route, Self::Topic, Self::Key, Self::Consumer, Self::Saga];

    /// Gives the name that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Topic => "topic",
            Self::Key => "key",
            Self::Consumer => "consumer",
            Self::Saga => "saga",
        }
    }
}

impl fmt::Display for ControlScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ControlScope {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == s).ok_or(())
    }
}

/// What a control does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlAction {
    /// Nothing of the scope starts; what is in flight ends. No attempt is counted.
    Pause,
    /// A route publishes at most so many events a second, more than 0, in each relay process.
    Rate(f64),
}

/// A control that is in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Control {
    /// What it applies to.
    pub scope: ControlScope,
    /// The name of the route, topic, consumer or saga, or the key.
    pub name: String,
    /// What it does.
    pub action: ControlAction,
    /// The operator who set it.
    pub by: String,
    /// The operator's reason.
    pub reason: String,
    /// When it was set, by the database's clock.
    pub set_at: Timestamp,
    /// When it ends by itself; `None` if an operator has to end it.
    pub until: Option<Timestamp>,
    /// Time until then, at the read.
    #[serde(serialize_with = "seconds")]
    pub ends_in: Option<Duration>,
}

fn seconds<S: Serializer>(left: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    left.map(|left| left.as_secs_f64()).serialize(serializer)
}

/// The controls that are in force at one read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Controls(pub Vec<Control>);

impl Controls {
    /// Gives the pause of a scope, if there is one.
    #[must_use]
    pub fn pause(&self, scope: ControlScope, name: &str) -> Option<&Control> {
        self.0.iter().find(|control| {
            control.scope == scope && control.action == ControlAction::Pause && control.name == name
        })
    }

    /// Gives the rate limit of a route in events a second, if there is one.
    #[must_use]
    pub fn rate(&self, route: &str) -> Option<f64> {
        self.0.iter().find_map(|control| match control.action {
            ControlAction::Rate(rate)
                if control.scope == ControlScope::Route && control.name == route =>
            {
                Some(rate)
            }
            ControlAction::Rate(_) | ControlAction::Pause => None,
        })
    }
}

/// Stores controls.
#[async_trait]
pub trait ControlStore: Send + Sync + 'static {
    /// Reads the controls that are in force, by scope and name.
    async fn controls(&self) -> Result<Controls, StoreError>;

    /// Sets a control, in place of one with the same scope, name and kind of action, with a row of
    /// the audit, in one transaction. It ends by itself after `lasts`, where that is set.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a rate that is not above 0, or for a scope other than a route.
    async fn set_control(
        &self,
        scope: ControlScope,
        name: &str,
        action: ControlAction,
        lasts: Option<Duration>,
        note: &OperatorNote,
    ) -> Result<(), StoreError>;

    /// Ends the controls of a scope and name (pause and rate), with a row of the audit. Gives how
    /// many there were; zero writes no row.
    async fn end_controls(
        &self,
        scope: ControlScope,
        name: &str,
        note: &OperatorNote,
    ) -> Result<u64, StoreError>;
}
