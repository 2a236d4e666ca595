//! What runs a service: its database, its relay, its consumer, its sagas and its HTTP server.

mod database;
#[cfg(feature = "kafka")]
mod kafka;
mod server;
mod wire;

pub use database::{Database, Place};
#[cfg(feature = "kafka")]
pub use kafka::Kafka;
#[cfg(feature = "amqp")]
pub use wire::Rabbit;
pub use wire::Wire;

use anyhow::Context;
use axum::Router;
use outbox_sea_orm::{
    consumer::{ConsumerHandle, ConsumerStats},
    prelude::*,
    relay::RelayStats,
    saga::SagasError,
    transport::{Limits, Selector},
};
use server::Server;
use std::time::Duration;
use tokio::sync::watch;

/// Wait after a failed publish; the usual second is long for somebody who watches.
const BACKOFF: Duration = Duration::from_millis(200);
/// Longest such wait.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// Events in a batch: what the other service handles at once.
const BATCH: usize = 16;
/// Batches on their way at once: few, so that answers come long before the time is up.
const BATCHES: usize = 2;

/// A running service.
pub struct Service {
    pub name: &'static str,
    pub outbox: Outbox,
    pub database: Database,
    pub server: Server,
    /// What its consumer has done so far.
    pub received: watch::Receiver<ConsumerStats>,
    /// What its relay has done so far.
    pub sent: watch::Receiver<RelayStats>,
    /// Publishes that failed so far, each to be made again.
    pub failed: watch::Receiver<u64>,
    consumer: Option<ConsumerHandle>,
    relay: Option<Relay>,
    sagas: Option<Sagas>,
}

/// Another service, and which events go to it.
pub struct To<'a> {
    pub name: &'static str,
    pub url: &'a str,
    pub events: Selector,
}

/// How services reach each other.
pub struct Link {
    /// What carries events.
    pub wire: Wire,
    /// How long to wait for an answer.
    pub timeout: Duration,
    /// Whether every event that was delivered is told.
    pub tells: bool,
}

impl Service {
    /// Starts consumer and server.
    pub async fn start(
        name: &'static str,
        outbox: Outbox,
        database: Database,
        consumer: Consumer<Outbox>,
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

    /// Adds what carries its sagas.
    pub fn with_sagas(mut self, sagas: Sagas) -> Self {
        self.sagas = Some(sagas);
        self
    }

    /// Gives the address that the others see.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
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
        let (name, tells) = (self.name, link.tells);
        let mut relay = Relay::builder(&self.outbox);
        for To { name, url, events } in others {
            let route = Route::shared(name, events, link.wire.publisher(url, link)?);
            relay = relay.add_route(route.retry(retry).limits(limits));
        }
        let relay = relay
            .on_failed(move |_event, _error, _attempt| failing.send_modify(|failed| *failed += 1))
            .on_delivered(move |event, _receipt| {
                if tells {
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

    /// Lets what carries the sagas die in the middle of its steps, as when its process is killed, and another one go on.
    pub async fn crash(
        &mut self,
        next: impl AsyncFnOnce(&Outbox) -> Result<Sagas, SagasError>,
    ) -> anyhow::Result<()> {
        if let Some(sagas) = self.sagas.take() {
            // An error says that steps were cut off, which is what is wanted.
            let _ = sagas.shutdown(Duration::ZERO).await;
        }
        self.sagas = Some(next(&self.outbox).await?);
        Ok(())
    }

    /// Stops: the relay, then the server, which answers what is under way, then consumer and sagas.
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
