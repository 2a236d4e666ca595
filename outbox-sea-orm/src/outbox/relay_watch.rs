//! Warns, once, that events are saved and no relay publishes them.

use super::Outbox;
use crate::error::OutboxError;
use outbox_core::admin::AdminStore;
use sea_orm::ConnectionTrait;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::runtime::Handle;

/// How long after the first event the check runs, unless set.
pub(super) const DEFAULT_DELAY: Duration = Duration::from_secs(60);

/// The check whether a relay runs.
#[derive(Debug)]
pub(super) struct RelayWatch {
    is_scheduled: AtomicBool,
    delay: Duration,
}

impl RelayWatch {
    pub(super) const fn new(delay: Duration) -> Self {
        Self { is_scheduled: AtomicBool::new(false), delay }
    }
}

impl Outbox {
    /// Checks, some time after the first event of this process was saved, whether any relay owns a
    /// partition; does nothing where this process has a relay.
    pub(super) fn schedule_relay_check(&self) {
        let RelayWatch { is_scheduled, delay } = &self.0.relay_watch;
        if is_scheduled.load(Relaxed) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if is_scheduled.swap(true, Relaxed) {
            return;
        }
        let (inner, delay) = (Arc::downgrade(&self.0), *delay);
        runtime.spawn(async move {
            tokio::time::sleep(delay).await;
            let Some(inner) = inner.upgrade() else { return };
            Self(inner).warn_without_relays().await;
        });
    }

    /// Notes that this process has a relay, so that no check is needed.
    pub(super) fn has_a_relay(&self) {
        self.0.relay_watch.is_scheduled.store(true, Relaxed);
    }

    async fn warn_without_relays(&self) {
        match self.count_waiting_events().await {
            Ok(None) => tracing::debug!(
                source = self.source(),
                "a relay owns partitions, or nothing waits for one"
            ),
            Ok(Some(pending)) => tracing::warn!(
                source = self.source(),
                pending,
                "events are saved, and no relay owns a partition: nothing is published; start one, here or in another process, with \
                 `Relay::builder(&outbox).route(..).start()`"
            ),
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "it was not seen whether there is a relay"
                );
            }
        }
    }

    /// Counts the events that wait where no relay owns a partition.
    async fn count_waiting_events(&self) -> Result<Option<u64>, OutboxError> {
        let schema = self.schema();
        let owned = schema.filled("SELECT 1 FROM {partitions} WHERE owner IS NOT NULL LIMIT 1");
        if self.connection().query_one_raw(schema.statement(&owned, Vec::new())).await?.is_some() {
            return Ok(None);
        }
        let pending = self.stats().await?.pending;
        Ok((pending > 0).then_some(pending))
    }
}
