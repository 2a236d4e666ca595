//! The outbox as the store of what operators pause and slow down, and of what running consumers and
//! coordinators write about themselves.

use crate::{error::database, outbox::Outbox};
use async_trait::async_trait;
use outbox_core::{
    admin::{
        ControlAction, ControlScope, ControlStore, Controls, Live, LiveStore, OperatorNote,
        OperatorRows,
    },
    outbox::StoreError,
    runtime::Wake,
};
use std::time::Duration;

#[async_trait]
impl ControlStore for Outbox {
    async fn controls(&self) -> Result<Controls, StoreError> {
        // A read without locks: it holds the heartbeats up for its own time only.
        self.schema().controls(self.heartbeat_pool()).await.map_err(database)
    }

    async fn set_control(
        &self,
        scope: ControlScope,
        name: &str,
        action: ControlAction,
        lasts: Option<Duration>,
        note: &OperatorNote,
    ) -> Result<(), StoreError> {
        let checked = action.check(scope, name, lasts);
        checked.map_err(|fault| StoreError::Refused(fault.into()))?;
        let (schema, target) = (self.schema(), target((scope, name), action, lasts));
        // Before the transaction, so that two operators lock rows in one order.
        schema.delete_ended_controls(&**self.work()).await.map_err(database)?;
        let tx = self.begin_read_committed().await?;
        let control = (scope, name);
        schema.write_control(&tx, control, action, lasts, note).await.map_err(database)?;
        schema.write_audit(&tx, (action.as_str(), &target), 1, note).await.map_err(database)?;
        tx.commit().await?;
        self.wake_all();
        Ok(())
    }

    async fn end_controls(
        &self,
        scope: ControlScope,
        name: &str,
        note: &OperatorNote,
    ) -> Result<u64, StoreError> {
        let schema = self.schema();
        schema.delete_ended_controls(&**self.work()).await.map_err(database)?;
        let tx = self.begin_read_committed().await?;
        let ended = schema.delete_controls(&tx, (scope, name)).await.map_err(database)?;
        if ended == 0 {
            tx.rollback().await?;
            return Ok(0);
        }
        let target = format!("{scope} {name}");
        schema.write_audit(&tx, ("resume", &target), ended, note).await.map_err(database)?;
        tx.commit().await?;
        self.wake_all();
        Ok(ended)
    }
}

#[async_trait]
impl LiveStore for Outbox {
    async fn write_live(&self, id: &str, name: &str, live: Live) -> Result<(), StoreError> {
        // Not the connection of the heartbeats: somebody may have locked the row.
        self.schema().write_live(&**self.work(), (id, name), live).await.map_err(database)
    }

    async fn delete_live(&self, id: &str) -> Result<(), StoreError> {
        self.schema().delete_live(&**self.work(), id).await.map_err(database)
    }
}

impl OperatorRows for Outbox {
    fn control_wake(&self) -> Option<Wake> {
        Some(self.wake_handle())
    }
}

impl Outbox {
    /// Wakes the relays, consumers and coordinators of this process, and the relays of others where
    /// the database has notifications.
    fn wake_all(&self) {
        self.wake();
        self.wake_of_sagas().wake();
    }
}

/// Says what a control applies to and what it does.
fn target(
    (scope, name): (ControlScope, &str),
    action: ControlAction,
    lasts: Option<Duration>,
) -> String {
    let mut target = format!("{scope} {name}");
    if let ControlAction::Rate(rate) = action {
        target.push_str(&format!(", {rate} events a second"));
    }
    if let Some(lasts) = lasts {
        target.push_str(&format!(", for {lasts:?}"));
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_says_what_was_paused_how_much_and_for_how_long() {
        use ControlAction::{Pause, Rate};
        let minute = Some(Duration::from_mins(1));
        for (scope, action, lasts, expected) in [
            (ControlScope::Topic, Pause, None, "topic orders"),
            (ControlScope::Route, Rate(2.5), None, "route orders, 2.5 events a second"),
            (ControlScope::Route, Pause, minute, "route orders, for 60s"),
        ] {
            assert_eq!(target((scope, "orders"), action, lasts), expected);
        }
    }
}
