//! How a relay is set up, started and stopped.

use super::{
    RelayConfig, RelaySource, RelayStats,
    life::{Parts, live},
    observers::Observers,
};
use crate::{
    event::Message,
    failure::{DeadLetter, FailureClass},
    outbox::StoreError,
    runtime::{Exit, Restarts, Shutdown, Supervisor, SupervisorError, Task, Wake, spawn},
    transport::{PublishError, Publisher, Receipt, Route, Selector},
};
use std::{collections::HashSet, future::Future, sync::Arc, time::Duration};
use tokio::sync::watch;

/// Longest route name: a column of the database.
const MAX_NAME: usize = 63;

/// Why a relay did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The configuration has faults; all of them.
    #[error("the relay cannot start: {}", .0.join("; "))]
    Configuration(Vec<String>),
    /// The outbox cannot be opened.
    #[error("the outbox cannot be opened")]
    Store(#[from] StoreError),
    /// The relay gave up after failures, or did not stop in time.
    #[error(transparent)]
    Ended(#[from] SupervisorError),
    /// The task of the relay ended from outside.
    #[error("the relay was ended from outside: {0}")]
    Aborted(String),
}

/// Sets up a relay. See [`Relay::builder`].
#[must_use = "a relay carries nothing before `start`"]
pub struct RelayBuilder<'a> {
    source: &'a dyn RelaySource,
    routes: Vec<Route>,
    config: RelayConfig,
    observers: Observers,
}

impl<'a> RelayBuilder<'a> {
    /// Adds a route. Its name is stable: it is stored with every event that waits for it. An event goes to every route whose
    /// selector takes it, and is finished when each of them has confirmed it.
    pub fn route(
        self,
        name: impl Into<Arc<str>>,
        selector: Selector,
        publisher: impl Publisher,
    ) -> Self {
        self.add_route(Route::new(name, selector, publisher))
    }

    /// Adds a route with settings of its own.
    pub fn add_route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Sets how long the relay owns its partitions without renewing: the pause after a crash.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.config.lease = lease;
        self
    }

    /// Sets the longest pause between two reads of an idle relay.
    pub fn poll(mut self, poll: Duration) -> Self {
        self.config.poll = poll;
        self
    }

    /// Sets how long an event that no route of this relay takes waits for one before it becomes a dead letter, 10 min unless
    /// set: for a relay with that route, which a deployment starts. While a relay with other routes waits for its turn it is
    /// up to an hour. Zero lets it become a dead letter at once, unless such a relay waits.
    pub fn unroutable_after(mut self, after: Duration) -> Self {
        self.config.unroutable_after = after;
        self
    }

    /// Changes further settings.
    pub fn configure(mut self, change: impl FnOnce(&mut RelayConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Is told of every confirmation, with what the destination said. Must not block.
    pub fn on_delivered(
        mut self,
        tell: impl Fn(&Message, &Receipt) + Send + Sync + 'static,
    ) -> Self {
        self.observers.delivered.push(Box::new(tell));
        self
    }

    /// Is told of every failed attempt, with its number from 1. Must not block.
    pub fn on_failed(
        mut self,
        tell: impl Fn(&Message, &PublishError, u32) + Send + Sync + 'static,
    ) -> Self {
        self.observers.failed.push(Box::new(tell));
        self
    }

    /// Is told of every dead letter after it was written. What dies with the process before that is not told again; the
    /// letter itself is in the database.
    pub fn on_dead_letter<F>(
        mut self,
        tell: impl Fn(Arc<DeadLetter>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.observers.dead.push(Box::new(move |letter| Box::pin(tell(letter))));
        self
    }

    /// Opens the store on connections of its own and starts the actors.
    ///
    /// A destination that is down does not keep the relay from starting: it is warned of, and probed.
    ///
    /// # Errors
    /// [`RelayError::Configuration`] with all faults at once, those of [publishers](Publisher::check) too, or [`RelayError::Store`] when the outbox cannot be opened.
    ///
    /// # Cancel safety
    /// A call that is dropped starts nothing.
    pub async fn start(self) -> Result<Relay, RelayError> {
        let mut faults = self.faults();
        faults.extend(self.faults_of_publishers());
        if !faults.is_empty() {
            return Err(RelayError::Configuration(faults));
        }
        for route in &self.routes {
            if let Some(timeout) =
                route.publisher.timeout().filter(|timeout| *timeout > route.deadline)
            {
                tracing::warn!(
                    route = &*route.name,
                    ?timeout,
                    deadline = ?route.deadline,
                    "the publisher waits longer for an answer than the deadline of its route: the deadline ends a publish \
                     that hangs, and what the destination says later is not heard; shorten the publisher's timeout"
                );
            }
        }
        let store = self.source.open_relay_store(self.config.lease).await?;
        // Says now what would be said again and again later.
        store.leases.shape().await?;
        let routes: Arc<[Route]> = self.routes.into();
        self.source.routes_known(&routes);
        let (stats, shown) = watch::channel(RelayStats::default());
        let shutdown = Shutdown::default();
        let wake = self.source.wake_handle();
        let parts = Arc::new(Parts {
            store,
            routes,
            config: self.config,
            wake: wake.clone(),
            shutdown: shutdown.clone(),
            observers: Arc::new(self.observers),
            stats,
        });
        let supervisor = Supervisor::new(shutdown.clone(), Restarts::default())
            .actor("relay", move || live(parts.clone()));
        let task = spawn(supervisor.run());
        Ok(Relay { task, shutdown, stats: shown, wake })
    }

    /// Asks every publisher for its configuration. A destination that is down is no fault of it.
    fn faults_of_publishers(&self) -> impl Iterator<Item = String> {
        self.routes.iter().filter_map(|route| {
            let error = route
                .publisher
                .check()
                .err()
                .filter(|error| error.class() == FailureClass::Permanent)?;
            Some(format!(
                "the publisher of route `{}` is configured wrongly: {}",
                route.name,
                error.full_text()
            ))
        })
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.routes.is_empty() {
            faults.push(
                "it has no route; add one with `.route(name, topic(..), publisher)`".to_owned(),
            );
        }
        let mut seen = HashSet::new();
        for route in &self.routes {
            let name = &*route.name;
            if name.is_empty()
                || name.len() > MAX_NAME
                || name.chars().any(|c| c.is_control() || c.is_whitespace())
            {
                faults.push(format!(
                    "the route name `{name}` must have 1 to {MAX_NAME} bytes without spaces"
                ));
            }
            if !seen.insert(name) {
                faults.push(format!(
                    "two routes are named `{name}`; names are stored and must be unique"
                ));
            }
            if route.deadline.is_zero() {
                faults.push(format!("the deadline of route `{name}` is zero"));
            }
            if route.max_in_memory == 0 {
                faults.push(format!("`max_in_memory` of route `{name}` is zero"));
            }
        }
        if self.config.lease < Duration::from_millis(300) {
            faults.push(format!(
                "a lease of {:?} is too short to be renewed in time; 300 ms at least",
                self.config.lease
            ));
        }
        if self.config.poll.is_zero() || self.config.poll > Duration::from_hours(1) {
            faults.push(format!("a poll of {:?} is out of range; up to an hour", self.config.poll));
        }
        for (what, value) in [
            ("per_route", self.config.per_route),
            ("per_key", self.config.per_key),
            ("read_batch", self.config.read_batch),
        ] {
            if value < 2 {
                faults.push(format!("`{what}` must be at least 2"));
            }
        }
        faults
    }
}

/// A running relay. Dropped, it goes on until the process ends; say [`shutdown`](Self::shutdown).
#[derive(Debug)]
pub struct Relay {
    task: Task<Result<(), SupervisorError>>,
    shutdown: Shutdown,
    stats: watch::Receiver<RelayStats>,
    wake: Wake,
}

impl Relay {
    /// Sets up a relay on an outbox.
    pub fn builder(source: &dyn RelaySource) -> RelayBuilder<'_> {
        RelayBuilder {
            source,
            routes: Vec::new(),
            config: RelayConfig::default(),
            observers: Observers::default(),
        }
    }

    /// Shows the counters, up to 50 ms old.
    #[must_use]
    pub fn stats(&self) -> watch::Receiver<RelayStats> {
        self.stats.clone()
    }

    /// Makes the relay read now.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// Stops reading, lets what is in flight finish, settles, hands the partitions back; all that within the time.
    ///
    /// # Errors
    /// [`RelayError::Ended`] when the relay had given up before, or was aborted at the deadline; what was not settled is
    /// delivered again by the next relay.
    ///
    /// # Cancel safety
    /// A call that is dropped lets the shutdown go on.
    pub async fn shutdown(self, within: Duration) -> Result<(), RelayError> {
        self.shutdown.request(within);
        self.ended().await
    }

    /// Waits until the relay has ended by itself, which it only does when it gives up.
    ///
    /// # Errors
    /// [`RelayError::Ended`] with the cause.
    pub async fn ended(self) -> Result<(), RelayError> {
        match self.task.await {
            Exit::Finished(outcome) => Ok(outcome?),
            Exit::Panicked(text) => Err(RelayError::Aborted(text)),
            Exit::Cancelled => Err(RelayError::Aborted("cancelled".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{outbox::RelayStore, transport::everything};
    use async_trait::async_trait;

    struct NoDatabase;

    #[async_trait]
    impl RelaySource for NoDatabase {
        async fn open_relay_store(&self, _: Duration) -> Result<RelayStore, StoreError> {
            Err(StoreError::Mismatch("the start has come to the database".into()))
        }
        fn wake_handle(&self) -> Wake {
            Wake::default()
        }
    }

    struct Checked(Option<PublishError>);

    #[async_trait]
    impl Publisher for Checked {
        async fn publish(&self, _: &Message) -> Result<Receipt, PublishError> {
            Ok(Receipt::new())
        }
        fn check(&self) -> Result<(), PublishError> {
            match &self.0 {
                None => Ok(()),
                Some(error) if error.class() == FailureClass::Permanent => {
                    Err(PublishError::permanent(error.to_string()))
                }
                Some(error) => Err(PublishError::unavailable(error.to_string())),
            }
        }
    }

    #[tokio::test]
    async fn a_publisher_that_is_configured_wrongly_refuses_the_start_and_a_destination_that_is_down_does_not()
     {
        let wrong = |text: &str| Checked(Some(PublishError::permanent(text)));
        let start = Relay::builder(&NoDatabase)
            .route("well", everything(), Checked(None))
            .route("secret", everything(), wrong("the secret is too short"))
            .route("url", everything(), wrong("the URL has no host"))
            .start();
        match start.await {
            Err(RelayError::Configuration(faults)) => {
                assert_eq!(faults.len(), 2, "{faults:?}");
                assert!(
                    faults[0].contains("`secret`") && faults[0].contains("too short"),
                    "{faults:?}"
                );
                assert!(faults[1].contains("`url`") && faults[1].contains("no host"), "{faults:?}");
            }
            other => panic!("a relay with a wrong secret has started: {other:?}"),
        }
        let down = Checked(Some(PublishError::unavailable("connection refused")));
        let start = Relay::builder(&NoDatabase).route("down", everything(), down).start().await;
        assert!(matches!(start, Err(RelayError::Store(_))), "{start:?}");
    }
}
