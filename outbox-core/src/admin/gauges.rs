//! The gauges of one database, read when the metrics are asked for.

use super::AdminStore;
use crate::{
    failure::{FailureReports, full_text},
    outbox::OutboxStats,
    runtime::now,
    telemetry::{Gauge, Metrics, metric},
};
use std::{
    fmt,
    time::{Duration, Instant},
};
use tokio::{sync::Mutex, time::timeout};

/// Shortest pause between two reads: the counts cost up to 100,000 rows of an index each, and a
/// backlog grows slowly enough for an alert.
const READ_INTERVAL: Duration = Duration::from_secs(15);
/// How long a read may take: less than the usual timeout of a scrape, 10 s, so that the other
/// metrics are shown all the same.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The gauges of one database: how many of its events wait, are retried or are dead letters, and for
/// how long the oldest waits. What serves or exports metrics refreshes them.
pub struct DatabaseGauges {
    name: String,
    store: Box<dyn AdminStore>,
    /// Held during a read: one read serves all who ask meanwhile.
    last: Mutex<LastRead>,
}

#[derive(Default)]
struct LastRead {
    at: Option<Instant>,
    /// `None` while the database does not answer: a gauge that is gone says that.
    gauges: Option<Gauges>,
    failures: FailureReports,
}

struct Gauges {
    pending: Gauge,
    retrying: Gauge,
    dead: Gauge,
    oldest_age: Gauge,
}

impl Gauges {
    fn new(metrics: &Metrics, database: &str) -> Self {
        Self {
            pending: metrics.gauge(&metric::PENDING, [database]),
            retrying: metrics.gauge(&metric::RETRYING, [database]),
            dead: metrics.gauge(&metric::DEAD, [database]),
            oldest_age: metrics.gauge(&metric::OLDEST_PENDING_AGE, [database]),
        }
    }

    fn set(&self, stats: &OutboxStats) {
        self.pending.set_count(stats.pending);
        self.retrying.set_count(stats.retrying);
        self.dead.set_count(stats.dead);
        self.oldest_age.set_duration(stats.oldest_pending.unwrap_or_default());
    }
}

impl fmt::Debug for DatabaseGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseGauges").field("name", &self.name).finish_non_exhaustive()
    }
}

impl DatabaseGauges {
    /// Names a database; nothing is read yet.
    pub fn new(name: impl Into<String>, store: impl AdminStore) -> Self {
        Self { name: name.into(), store: Box::new(store), last: Mutex::default() }
    }

    /// Reads the statistics, unless that was done less than 15 s ago, and sets the gauges. They are
    /// left out while the database does not answer.
    ///
    /// # Cancel safety
    /// Dropped, the next call reads 15 s later.
    pub async fn refresh(&self, metrics: &Metrics) {
        let mut last = self.last.lock().await;
        let time = now();
        if last.at.is_some_and(|at| time.saturating_duration_since(at) < READ_INTERVAL) {
            return;
        }
        last.at = Some(time);
        let error = match timeout(READ_TIMEOUT, self.store.stats()).await {
            Ok(Ok(stats)) => {
                last.failures.succeeded(now());
                let gauges = last.gauges.get_or_insert_with(|| Gauges::new(metrics, &self.name));
                return gauges.set(&stats);
            }
            Ok(Err(error)) => full_text(&error),
            Err(_) => format!("no answer within {READ_TIMEOUT:?}"),
        };
        last.gauges = None;
        if last.failures.failed(now()).is_some() {
            tracing::warn!(
                database = self.name,
                error,
                "the statistics of a database cannot be read: its gauges are left out until it answers"
            );
        }
    }
}

#[cfg(test)]
mod tests;
