//! Says, once, that events are saved and no relay publishes them.

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

/// How long after the first event a relay may need to begin, unless set.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether anybody has looked.
#[derive(Debug)]
pub(super) struct RelayWatch {
    looked: AtomicBool,
    patience: Duration,
}

impl RelayWatch {
    pub(super) const fn new(patience: Duration) -> Self {
        Self { looked: AtomicBool::new(false), patience }
    }
}

impl Outbox {
    /// Looks, some time after the first event of this process was saved, whether any relay owns a partition; nothing where a
    /// relay was started here.
    pub(super) fn look_for_relays(&self) {
        let RelayWatch { looked, patience } = &self.0.relay_watch;
        if looked.load(Relaxed) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if looked.swap(true, Relaxed) {
            return;
        }
        let (inner, patience) = (Arc::downgrade(&self.0), *patience);
        runtime.spawn(async move {
            tokio::time::sleep(patience).await;
            let Some(inner) = inner.upgrade() else { return };
            Self(inner).warn_without_relays().await;
        });
    }

    /// Notes that this process has a relay.
    pub(super) fn has_a_relay(&self) {
        self.0.relay_watch.looked.store(true, Relaxed);
    }

    async fn warn_without_relays(&self) {
        match self.waits_for_a_relay().await {
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

    /// Counts the events that wait where no relay owns anything.
    async fn waits_for_a_relay(&self) -> Result<Option<u64>, OutboxError> {
        let schema = self.schema();
        let owned = schema.filled("SELECT 1 FROM {partitions} WHERE owner IS NOT NULL LIMIT 1");
        if self.connection().query_one_raw(schema.statement(&owned, Vec::new())).await?.is_some() {
            return Ok(None);
        }
        let pending = self.stats().await?.pending;
        Ok((pending > 0).then_some(pending))
    }
}
