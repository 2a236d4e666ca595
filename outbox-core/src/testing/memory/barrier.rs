//! The barrier: recorded commands of sagas.

use super::{MemoryStore, MemoryTx, busy};
use crate::{
    event::SagaId,
    outbox::{BarrierStore, CommandKey, CommandOutcome, RecordedCommand, StoreError, StoredReply},
    saga::CommandHash,
};
use async_trait::async_trait;
use std::{num::NonZeroU32, sync::PoisonError};

/// Consumer, saga, step, round, phase.
pub(super) type OwnedCommandKey = (String, SagaId, String, NonZeroU32, &'static str);

fn owned(key: CommandKey<'_>) -> OwnedCommandKey {
    (key.consumer.to_owned(), key.saga, key.step.to_owned(), key.round, key.phase.as_str())
}

impl MemoryStore {
    /// Records a command for the transaction, or gives the recorded one; `None` while another transaction has locked its
    /// key.
    fn try_record(
        &self,
        tx: &MemoryTx,
        key: &OwnedCommandKey,
        record: &RecordedCommand,
    ) -> Result<Option<Option<RecordedCommand>>, StoreError> {
        let mut state = self.0.writable()?;
        let around =
            tx.around.as_ref().map(|around| around.lock().unwrap_or_else(PoisonError::into_inner));
        let outside = around.as_ref().and_then(|staged| staged.commands.get(key).cloned());
        let holds_outside = around.is_some_and(|staged| !staged.commands.is_empty());
        let mut staged = tx.staged();
        let known = staged
            .commands
            .get(key)
            .cloned()
            .or(outside)
            .or_else(|| state.commands.get(key).cloned());
        if known.is_some() {
            return Ok(Some(known));
        }
        if state.locked_commands.insert(key.clone()) {
            staged.commands.insert(key.clone(), record.clone());
            return Ok(Some(None));
        }
        if staged.commands.is_empty() && !holds_outside {
            Ok(None)
        } else {
            Err(busy("a transaction that holds a command waits for another"))
        }
    }
}

#[async_trait]
impl BarrierStore for MemoryStore {
    async fn record_command(
        &self,
        tx: &MemoryTx,
        key: CommandKey<'_>,
        command: Option<CommandHash>,
        outcome: CommandOutcome,
    ) -> Result<Option<RecordedCommand>, StoreError> {
        let (key, record) = (owned(key), RecordedCommand { outcome, reply: None, command });
        let mut ended = self.0.ended.subscribe();
        loop {
            if let Some(known) = self.try_record(tx, &key, &record)? {
                return Ok(known);
            }
            // The sender lives as long as the store.
            let _ = ended.changed().await;
        }
    }

    async fn store_reply(
        &self,
        tx: &MemoryTx,
        key: CommandKey<'_>,
        outcome: CommandOutcome,
        reply: &StoredReply,
    ) -> Result<(), StoreError> {
        let _up = self.0.up()?;
        let (key, mut staged) = (owned(key), tx.staged());
        let command = staged.commands.get(&key).and_then(|known| known.command);
        staged
            .commands
            .insert(key, RecordedCommand { outcome, reply: Some(reply.clone()), command });
        Ok(())
    }

    async fn remove_command(&self, tx: &MemoryTx, key: CommandKey<'_>) -> Result<(), StoreError> {
        let mut state = self.0.up()?;
        let key = owned(key);
        tx.staged().commands.remove(&key);
        state.locked_commands.remove(&key);
        Ok(())
    }
}
