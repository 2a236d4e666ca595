//! The builder of a relay.

use super::{
    Relay, RelayError, RelaySettings, RelaySource, RelayStats,
    fault::of_relay,
    incarnation::{RelayParts, run},
    observers::Observers,
};
use crate::{
    event::Message,
    failure::DeadLetter,
    runtime::{Restarts, Shutdown, Supervisor, spawn},
    telemetry::{HealthCheck, Heartbeats, Metrics},
    transport::{PublishError, Publisher, Receipt, Route, Selector},
};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::sync::watch;

/// Sets up a relay. See [`Relay::builder`].
///
/// ```
/// # use outbox_core::{relay::{Relay, RelayError, RelaySource}, transport::{Publisher, everything, topic}};
/// # use std::time::Duration;
/// # async fn example(outbox: &dyn RelaySource, billing: impl Publisher, audit: impl Publisher) -> Result<(), RelayError> {
/// let relay = Relay::builder(outbox)
///     .route("billing", topic("orders"), billing)
///     .route("audit", everything(), audit)
///     .start()
///     .await?;
/// relay.shutdown(Duration::from_secs(10)).await?;
/// # Ok(()) }
/// ```
#[must_use = "a relay publishes nothing before `start`"]
pub struct RelayBuilder<'a> {
    source: &'a dyn RelaySource,
    routes: Vec<Route>,
    config: RelaySettings,
    observers: Observers,
    metrics: Metrics,
}

impl<'a> RelayBuilder<'a> {
    pub(super) fn new(source: &'a dyn RelaySource) -> Self {
        Self {
            source,
            routes: Vec::new(),
            config: RelaySettings::default(),
            observers: Observers::default(),
            metrics: Metrics::global(),
        }
    }

    /// Adds a route. Its name is stable: it is stored with every event that waits for it. An event
    /// goes to every route whose selector takes it, and is finished when each of them has confirmed
    /// it.
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

    /// Sets how long the relay owns its partitions without renewing, 300 ms to 24 h: the pause
    /// after a crash.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.config.lease = lease;
        self
    }

    /// Sets the longest pause between two reads of an idle relay.
    pub fn poll(mut self, poll: Duration) -> Self {
        self.config.poll = poll;
        self
    }

    /// Sets how long an event that no route of this relay takes waits for one before it becomes a
    /// dead letter, 10 min unless set: for a relay with that route, which a deployment starts.
    /// While a relay with other routes waits for its turn it is up to an hour. Zero lets it become
    /// a dead letter at once, unless such a relay waits.
    ///
    /// ```
    /// # use outbox_core::relay::RelayBuilder;
    /// # use std::time::Duration;
    /// # fn example(relay: RelayBuilder<'_>) -> RelayBuilder<'_> {
    /// relay.unroutable_after(Duration::from_mins(30)) // our rollouts take longer
    /// # }
    /// ```
    pub fn unroutable_after(mut self, after: Duration) -> Self {
        self.config.unroutable_after = after;
        self
    }

    /// Changes further settings.
    ///
    /// ```
    /// # use outbox_core::relay::RelayBuilder;
    /// # fn example(relay: RelayBuilder<'_>) -> RelayBuilder<'_> {
    /// relay.configure(|settings| settings.read_batch = 1_024)
    /// # }
    /// ```
    pub fn configure(mut self, change: impl FnOnce(&mut RelaySettings)) -> Self {
        change(&mut self.config);
        self
    }

    /// Adds a listener for confirmations, each with the destination's receipt. It must not block.
    ///
    /// ```
    /// # use outbox_core::relay::RelayBuilder;
    /// # fn example(relay: RelayBuilder<'_>) -> RelayBuilder<'_> {
    /// relay.on_delivered(|message, receipt| {
    ///     println!("{} is at {:?}, position {:?}", message.id, receipt.destination, receipt.position);
    /// })
    /// # }
    /// ```
    pub fn on_delivered(
        mut self,
        listener: impl Fn(&Message, &Receipt) + Send + Sync + 'static,
    ) -> Self {
        self.observers.delivered.push(Box::new(listener));
        self
    }

    /// Adds a listener for failed attempts, each with its number from 1. It must not block.
    ///
    /// ```
    /// # use outbox_core::relay::RelayBuilder;
    /// # fn example(relay: RelayBuilder<'_>) -> RelayBuilder<'_> {
    /// relay.on_failed(|message, error, attempt| {
    ///     println!("attempt {attempt} at {} failed: {}", message.id, error.full_text());
    /// })
    /// # }
    /// ```
    pub fn on_failed(
        mut self,
        listener: impl Fn(&Message, &PublishError, u32) + Send + Sync + 'static,
    ) -> Self {
        self.observers.failed.push(Box::new(listener));
        self
    }

    /// Adds a listener for dead letters, called after each was written. If the process dies before
    /// the call, it is not repeated; the letter itself is in the database.
    ///
    /// ```
    /// # use outbox_core::relay::RelayBuilder;
    /// # async fn page_the_operator(_: String) {}
    /// # fn example(relay: RelayBuilder<'_>) -> RelayBuilder<'_> {
    /// relay.on_dead_letter(|letter| async move {
    ///     page_the_operator(format!("{} on {}: {}", letter.id, letter.route, letter.reason)).await;
    /// })
    /// # }
    /// ```
    pub fn on_dead_letter<F>(
        mut self,
        listener: impl Fn(Arc<DeadLetter>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.observers.dead_letters.push(Box::new(move |letter| Box::pin(listener(letter))));
        self
    }

    /// Counts into this registry; into that of the process unless set.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Opens the store on connections of its own and starts the actors.
    ///
    /// A destination that is down does not keep the relay from starting: the relay logs a warning
    /// and probes it.
    ///
    /// # Errors
    /// [`RelayError::Invalid`] with all faults at once, those of
    /// [publishers](Publisher::check) included, or [`RelayError::Store`] when the outbox cannot be
    /// opened.
    ///
    /// # Cancel safety
    /// A call that is dropped starts nothing.
    pub async fn start(self) -> Result<Relay, RelayError> {
        let faults = of_relay(&self.routes, &self.config);
        if !faults.is_empty() {
            return Err(RelayError::Invalid(faults));
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
                     that hangs, and a later answer is ignored; shorten the publisher's timeout"
                );
            }
        }
        let store = self.source.open_relay_store(self.config.lease).await?;
        // Fails now instead of in each read of the started relay.
        store.leases.info().await?;
        let routes: Arc<[Route]> = self.routes.into();
        self.source.routes_known(&routes);
        let (stats, stats_rx) = watch::channel(RelayStats::default());
        let shutdown = Shutdown::default();
        let wake = self.source.wake_handle();
        let heartbeats = Arc::new(Heartbeats::default());
        let lease = self.config.lease;
        let check = HealthCheck::new("relay", heartbeats.clone(), lease).with_lease(lease);
        let parts = Arc::new(RelayParts {
            store,
            routes,
            config: self.config,
            wake: wake.clone(),
            shutdown: shutdown.clone(),
            observers: Arc::new(self.observers),
            stats,
            metrics: self.metrics,
            heartbeats: heartbeats.clone(),
        });
        let supervisor = Supervisor::new(shutdown.clone(), Restarts::default())
            .actor("relay", move || run(parts.clone()));
        let task = spawn(async move { heartbeats.while_running(supervisor.run()).await });
        Ok(Relay::running(task, shutdown, stats_rx, wake, check))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        failure::FailureClass,
        outbox::{RelayStore, StoreError},
        runtime::Wake,
        transport::everything,
    };
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
            Err(RelayError::Invalid(faults)) => {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
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
