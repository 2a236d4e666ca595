//! The outbox's metrics and health over HTTP, without any SDK: an axum router with `/metrics`,
//! `/live` and `/ready`.
//!
//! ```no_run
//! # async fn example(
//! #     relay: outbox_core::relay::Relay,
//! #     consumer: outbox_core::consumer::Consumer,
//! #     outbox: impl outbox_core::admin::AdminStore,
//! # ) -> std::io::Result<()> {
//! use outbox_metrics::MetricsRouter;
//!
//! let router = MetricsRouter::new()
//!     .check(relay.health_check())
//!     .check(consumer.health_check())
//!     .database("shop", outbox) // how much waits there, read every 15 s at most
//!     .build();
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:9464").await?;
//! axum::serve(listener, router).await
//! # }
//! ```
//!
//! The answers name topics, routes, consumers and handlers, and no content: serve them on a port
//! that only the monitoring can reach. `docs/metrics.md` lists the metrics.

mod router;

pub use outbox_core::telemetry::{Health, HealthCheck, Metrics};
pub use router::MetricsRouter;

/// The code of the README, which the doc tests compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
