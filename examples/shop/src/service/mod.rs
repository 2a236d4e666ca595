//! A running service: its database, its relay, its consumer, its sagas and its HTTP server.

mod database;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqs")]
mod sqs;
mod server;
mod wire;

pub use database::{Database, Location};
#[cfg(feature = "kafka")]
pub use kafka::Kafka;
#[cfg(feature = "mqtt")]
pub use mqtt::Mqtt;
#[cfg(feature = "nats")]
pub use nats::Nats;
#[cfg(feature = "redis")]
pub use redis::Redis;
pub use server::Server;
#[cfg(feature = "sqs")]
pub use sqs::Sqs;
#[cfg(feature = "amqp")]
pub use wire::Rabbit;
pub use wire::Wire;

use anyhow::Context;
use axum::Router;
use outbox_dashboard::DashboardBuilder;
use outbox_metrics::HealthCheck;
use outbox_sea_orm::{
    consumer::{Consumer, ConsumerBuilder, ConsumerStats},
    prelude::*,
    relay::RelayStats,
    saga::SagasError,
    transport::{Limits, Selector},
};
use std::time::Duration;
use tokio::sync::watch;

/// The pause after a failed publish; shorter than the usual second, for the audience.
const BACKOFF: Duration = Duration::from_millis(200);
/// The longest such pause.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// Events in a batch: as many as the other service handles at once.
const BATCH: usize = 16;
/// Batches in flight at once: few, so that responses come long before the timeout.
const BATCHES: usize = 2;

/// A running service.
pub struct Service {
    pub name: &'static str,
    pub outbox: Outbox,
    pub database: Database,
    pub server: Server,
    /// The figures of its consumer.
    pub received: watch::Receiver<ConsumerStats>,
    /// The figures of its relay.
    pub sent: watch::Receiver<RelayStats>,
    /// Publishes that failed so far, each of which is repeated.
    pub failed: watch::Receiver<u64>,
    consumer: Option<Consumer>,
    relay: Option<Relay>,
    sagas: Option<Sagas>,
}

/// Another service, and the events for it.
pub struct To<'a> {
    pub name: &'static str,
    pub url: &'a str,
    pub events: Selector,
}

/// How services reach each other.
pub struct Link {
    /// The transport of the events.
    pub wire: Wire,
    /// The timeout of a response.
    pub timeout: Duration,
    /// Whether the relays print every event that they have delivered.
    pub prints_events: bool,
}

impl Service {
    /// Starts consumer and server.
    pub async fn start(
        name: &'static str,
        outbox: Outbox,
        database: Database,
        consumer: ConsumerBuilder<Outbox>,
        app: Router,
    ) -> anyhow::Result<Self> {
        let consumer = consumer.start().await?;
        Ok(Self {
            name,
            outbox,
            database,
            server: Server::start(app)?,
            received: consumer.stats(),
            sent: watch::channel(RelayStats::default()).1,
            failed: watch::channel(0).1,
            consumer: Some(consumer),
            relay: None,
            sagas: None,
        })
    }

    /// Adds the coordinator of its sagas.
    pub fn with_sagas(mut self, sagas: Sagas) -> Self {
        self.sagas = Some(sagas);
        self
    }

    /// Gives its address for the other services.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Gives the health of its parts.
    pub fn health_checks(&self) -> Vec<HealthCheck> {
        let relay = self.relay.as_ref().map(Relay::health_check);
        let consumer = self.consumer.as_ref().map(Consumer::health_check);
        let sagas = self.sagas.as_ref().map(Sagas::health_check);
        [relay, consumer, sagas].into_iter().flatten().collect()
    }

    /// Lets the page of its operators try its handlers, in transactions that are rolled back.
    pub fn add_trials(&self, page: DashboardBuilder) -> DashboardBuilder {
        match &self.consumer {
            Some(consumer) => page.tries(self.name, consumer.trials()),
            None => page,
        }
    }

    /// Starts the relay: events go to the other services as soon as they are committed.
    pub async fn relay(
        &mut self,
        others: impl IntoIterator<Item = To<'_>>,
        link: &Link,
    ) -> anyhow::Result<()> {
        let retry = RetryPolicy::default().backoff(BACKOFF).max_backoff(LONGEST_BACKOFF);
        let limits = Limits::default().max_batch(BATCH).max_in_flight(BATCHES);
        let (failing, failed) = watch::channel(0);
        let (name, prints_events) = (self.name, link.prints_events);
        let mut relay = Relay::builder(&self.outbox);
        for To { name, url, events } in others {
            let route = Route::shared(name, events, link.wire.publisher(url, link)?);
            relay = relay.add_route(route.retry(retry).limits(limits));
        }
        let relay = relay
            .on_failed(move |_event, _error, _attempt| failing.send_modify(|failed| *failed += 1))
            .on_delivered(move |event, _receipt| {
                if prints_events {
                    println!(
                        "{name} has sent {}  key {}",
                        event.event_type,
                        event.key.as_deref().unwrap_or("-")
                    );
                }
            })
            .start()
            .await
            .with_context(|| format!("the relay of {name} does not start"))?;
        (self.sent, self.failed, self.relay) = (relay.stats(), failed, Some(relay));
        Ok(())
    }

    /// Ends the coordinator in the middle of its steps, as when its process is killed, and starts
    /// another one.
    pub async fn crash(
        &mut self,
        next: impl AsyncFnOnce(&Outbox) -> Result<Sagas, SagasError>,
    ) -> anyhow::Result<()> {
        if let Some(sagas) = self.sagas.take() {
            // The error of interrupted steps is expected.
            let _ = sagas.shutdown(Duration::ZERO).await;
        }
        self.sagas = Some(next(&self.outbox).await?);
        Ok(())
    }

    /// Stops: the relay, then the server, which answers running requests, then consumer and sagas.
    pub async fn stop(&mut self, within: Duration) -> anyhow::Result<()> {
        let stopping = async {
            if let Some(relay) = self.relay.take() {
                relay.shutdown(within).await?;
            }
            self.server.close().await?;
            if let Some(consumer) = self.consumer.take() {
                consumer.shutdown(within).await?;
            }
            if let Some(sagas) = self.sagas.take() {
                sagas.shutdown(within).await?;
            }
            anyhow::Ok(())
        };
        let stopped = tokio::time::timeout(within, stopping).await;
        stopped.with_context(|| format!("{} did not stop within {within:?}", self.name))?
    }
}
