//! The router, and its builder.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use outbox_core::{
    admin::{AdminStore, DatabaseGauges},
    telemetry::{Health, HealthCheck, Metrics, PartFacts, health, prometheus},
};
use std::{fmt, sync::Arc};

/// Builds the router of a process: its metrics, and the health of its parts.
///
/// - `GET /metrics` gives the metrics as Prometheus text.
/// - `GET /live` says whether all parts run: 200, or 503 for a process that has to be restarted.
/// - `GET /ready` says whether all parts can do their work: 200, or 503.
///
/// The last two answer with [`Health`] as JSON.
#[must_use = "`build` gives the router"]
pub struct MetricsRouter {
    metrics: Metrics,
    checks: Vec<HealthCheck>,
    databases: Vec<DatabaseGauges>,
}

impl fmt::Debug for MetricsRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsRouter").field("checks", &self.checks).finish_non_exhaustive()
    }
}

impl Default for MetricsRouter {
    fn default() -> Self {
        Self::new()
    }
}

impl MetricsRouter {
    /// Begins with the metrics of the process, and with no part to check.
    pub fn new() -> Self {
        Self { metrics: Metrics::global(), checks: Vec::new(), databases: Vec::new() }
    }

    /// Serves another registry.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Adds a part to the health: the `health_check()` of a relay, a consumer or of sagas.
    pub fn check(mut self, check: HealthCheck) -> Self {
        self.checks.push(check);
        self
    }

    /// Adds the gauges of a database under a name. They are read when the metrics are asked for,
    /// every 15 s at most; while the database does not answer they are left out. One process is
    /// enough for each database.
    pub fn database(mut self, name: impl Into<String>, store: impl AdminStore) -> Self {
        self.databases.push(DatabaseGauges::new(name, store));
        self
    }

    /// Gives the router, to serve or to nest.
    pub fn build(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/live", get(live))
            .route("/ready", get(ready))
            .with_state(Arc::new(self))
    }

    fn health(&self) -> Health {
        let facts: Vec<PartFacts> = self.checks.iter().map(HealthCheck::facts).collect();
        health(&facts)
    }
}

async fn metrics(State(state): State<Arc<MetricsRouter>>) -> impl IntoResponse {
    for database in &state.databases {
        database.refresh(&state.metrics).await;
    }
    let text = prometheus::render(&state.metrics.snapshot());
    ([(CONTENT_TYPE, prometheus::CONTENT_TYPE)], text)
}

async fn live(State(state): State<Arc<MetricsRouter>>) -> impl IntoResponse {
    let health = state.health();
    (status(health.live), Json(health))
}

async fn ready(State(state): State<Arc<MetricsRouter>>) -> impl IntoResponse {
    let health = state.health();
    (status(health.ready), Json(health))
}

const fn status(is_well: bool) -> StatusCode {
    if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
