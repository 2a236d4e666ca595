//! What an operator has paused or slowed down. Rows of the database, read by relays, consumers and
//! coordinators at each renewal of their lease and on a wake.

use super::OperatorNote;
use crate::{
    event::{TextRule, Timestamp},
    outbox::StoreError,
};
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

/// The lowest and the highest rate in events a second: a store keeps thousandths, and no route
/// publishes a billion.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=1e9;
/// Shortest time after which a control ends by itself.
const SHORTEST: Duration = Duration::from_millis(1);

/// Why a control is refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlFault {
    /// The name cannot be that of a route, topic, key, consumer or saga.
    #[error("the name of a {0} has {rule}", rule = TextRule::ATTRIBUTE)]
    Name(ControlScope),
    /// The rate is out of range.
    #[error(
        "a rate of {0} events a second is not between {least} and {most}; pause the route to stop it",
        least = RATES.start(),
        most = RATES.end()
    )]
    Rate(f64),
    /// A rate is set for something else than a route.
    #[error("a rate is set for a route, and not for a {0}")]
    RateScope(ControlScope),
    /// It would end at once.
    #[error("a control that ends by itself lasts for {SHORTEST:?} at least")]
    Lasts,
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

impl ControlAction {
    /// Gives the name that is stored and shown: `pause` or `rate`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Rate(_) => "rate",
        }
    }

    /// Checks a control before a store writes it.
    ///
    /// # Errors
    /// [`ControlFault`]; a store gives it as the source of [`StoreError::Refused`].
    pub fn check(
        self,
        scope: ControlScope,
        name: &str,
        lasts: Option<Duration>,
    ) -> Result<(), ControlFault> {
        match self {
            _ if !TextRule::ATTRIBUTE.allows(name) => Err(ControlFault::Name(scope)),
            _ if lasts.is_some_and(|lasts| lasts < SHORTEST) => Err(ControlFault::Lasts),
            Self::Rate(_) if scope != ControlScope::Route => Err(ControlFault::RateScope(scope)),
            Self::Rate(rate) if !RATES.contains(&rate) => Err(ControlFault::Rate(rate)),
            Self::Pause | Self::Rate(_) => Ok(()),
        }
    }
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

    /// Tells whether two reads gave the same controls, however much of their time had passed.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&Control, &Control)| {
            *one == Control { ends_in: one.ends_in, ..other.clone() }
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(is_same)
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
    /// [`StoreError::Refused`] with the [`ControlFault`]: a rate that is not above 0 or is not for a
    /// route, or a name that nothing can have.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn control(name: &str, action: ControlAction, left: Option<u64>) -> Control {
        Control {
            scope: ControlScope::Route,
            name: name.to_owned(),
            action,
            by: "ann".to_owned(),
            reason: "the bank is down".to_owned(),
            set_at: Timestamp::from_micros(1),
            until: left.map(|_| Timestamp::from_micros(9)),
            ends_in: left.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_control_is_checked_before_it_is_stored() {
        use ControlAction::{Pause, Rate};
        use ControlScope::{Consumer, Key, Route};
        let (second, none) = (Some(Duration::from_secs(1)), None);
        for (action, scope, name, lasts, fault) in [
            (Pause, Route, "billing", second, None),
            (Pause, Key, "orders/7", none, None),
            (Rate(0.5), Route, "billing", none, None),
            (Pause, Key, "", none, Some(ControlFault::Name(Key))),
            (Pause, Consumer, "a\nb", none, Some(ControlFault::Name(Consumer))),
            (Pause, Route, "billing", Some(Duration::ZERO), Some(ControlFault::Lasts)),
            (Rate(0.0), Route, "billing", none, Some(ControlFault::Rate(0.0))),
            (Rate(-1.0), Route, "billing", none, Some(ControlFault::Rate(-1.0))),
            (Rate(1e10), Route, "billing", none, Some(ControlFault::Rate(1e10))),
            (Rate(1.0), Consumer, "receipts", none, Some(ControlFault::RateScope(Consumer))),
        ] {
            let seen = action.check(scope, name, lasts).err();
            assert_eq!(seen, fault, "{action:?} of {scope} {name:?} for {lasts:?}");
        }
        assert!(matches!(
            Rate(f64::NAN).check(Route, "billing", none),
            Err(ControlFault::Rate(rate)) if rate.is_nan()
        ));
    }

    #[test]
    fn a_pause_and_a_rate_are_found_by_scope_and_name() {
        let rate = ControlAction::Rate(2.5);
        let controls = Controls(vec![
            control("billing", ControlAction::Pause, None),
            control("ledger", rate, Some(5)),
        ]);
        let pause = |scope, name| controls.pause(scope, name).is_some();
        assert!(pause(ControlScope::Route, "billing"));
        assert!(!pause(ControlScope::Topic, "billing") && !pause(ControlScope::Route, "ledger"));
        assert_eq!((controls.rate("ledger"), controls.rate("billing")), (Some(2.5), None));
    }

    #[test]
    fn controls_are_the_same_while_their_time_passes() {
        let read = |left| Controls(vec![control("billing", ControlAction::Pause, left)]);
        for (one, other, same) in [
            (read(Some(5)), read(Some(4)), true),
            (read(None), read(None), true),
            (read(Some(5)), read(None), false),
            (read(None), Controls::default(), false),
        ] {
            assert_eq!(one.is_same(&other), same, "{one:?} {other:?}");
        }
    }
}
