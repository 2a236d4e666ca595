//! The outbox as the source of a relay's store.

use super::Outbox;
use crate::store::{StoreOptions, open_relay_store};
use async_trait::async_trait;
use outbox_core::{
    outbox::{RelayStore, StoreError},
    relay::RelaySource,
    runtime::Wake,
    transport::Route,
};
use std::{sync::Arc, time::Duration};

#[async_trait]
impl RelaySource for Outbox {
    async fn open_relay_store(&self, lease: Duration) -> Result<RelayStore, StoreError> {
        let options = StoreOptions::new(lease)
            .retention(self.0.retention)
            .letter_retention(self.0.retentions.letters)
            .audit_retention(self.0.retentions.audit)
            .behind_pooler(self.0.behind_pooler);
        let store = open_relay_store(&self.0.db, &self.0.schema, &options).await?;
        Ok(store.with_controls(Arc::new(self.clone())))
    }

    fn wake_handle(&self) -> Wake {
        self.0.wake.clone()
    }

    fn routes_known(&self, routes: &[Route]) {
        self.0.limits.set_all(routes);
        self.has_a_relay();
    }
}
