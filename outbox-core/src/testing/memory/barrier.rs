//! What is known of commands of sagas.

use super::{MemoryStore, MemoryTx, busy};
use crate::{
    event::SagaId,
    outbox::{BarrierStore, CallAnswer, CallKey, CallOutcome, KnownCall, StoreError},
    saga::CommandHash,
};
use async_trait::async_trait;
use std::{num::NonZeroU32, sync::PoisonError};

/// Consumer, saga, step, round, phase.
pub(super) type OwnedCall = (String, SagaId, String, NonZeroU32, &'static str);

fn owned(key: CallKey<'_>) -> OwnedCall {
    (key.consumer.to_owned(), key.saga, key.step.to_owned(), key.round, key.phase.as_str())
}

impl MemoryStore {
    /// Notes a call for the transaction, or gives what is known of it; `None` while another transaction holds it.
    fn try_note(
        &self,
        tx: &MemoryTx,
        key: &OwnedCall,
        noted: &KnownCall,
    ) -> Result<Option<Option<KnownCall>>, StoreError> {
        let mut state = self.0.writable()?;
        let around =
            tx.around.as_ref().map(|around| around.lock().unwrap_or_else(PoisonError::into_inner));
        let outside = around.as_ref().and_then(|staged| staged.calls.get(key).cloned());
        let holds_outside = around.is_some_and(|staged| !staged.calls.is_empty());
        let mut staged = tx.staged();
        let known =
            staged.calls.get(key).cloned().or(outside).or_else(|| state.calls.get(key).cloned());
        if known.is_some() {
            return Ok(Some(known));
        }
        if state.locked_calls.insert(key.clone()) {
            staged.calls.insert(key.clone(), noted.clone());
            return Ok(Some(None));
        }
        if staged.calls.is_empty() && !holds_outside {
            Ok(None)
        } else {
            Err(busy("a transaction that holds a call waits for another"))
        }
    }
}

#[async_trait]
impl BarrierStore for MemoryStore {
    async fn note_call(
        &self,
        tx: &MemoryTx,
        key: CallKey<'_>,
        command: Option<CommandHash>,
        outcome: CallOutcome,
    ) -> Result<Option<KnownCall>, StoreError> {
        let (key, noted) = (owned(key), KnownCall { outcome, answer: None, command });
        let mut ended = self.0.ended.subscribe();
        loop {
            if let Some(known) = self.try_note(tx, &key, &noted)? {
                return Ok(known);
            }
            // The sender lives as long as the store.
            let _ = ended.changed().await;
        }
    }

    async fn keep_answer(
        &self,
        tx: &MemoryTx,
        key: CallKey<'_>,
        outcome: CallOutcome,
        answer: &CallAnswer,
    ) -> Result<(), StoreError> {
        let _up = self.0.up()?;
        let (key, mut staged) = (owned(key), tx.staged());
        let command = staged.calls.get(&key).and_then(|known| known.command);
        staged.calls.insert(key, KnownCall { outcome, answer: Some(answer.clone()), command });
        Ok(())
    }

    async fn unnote_call(&self, tx: &MemoryTx, key: CallKey<'_>) -> Result<(), StoreError> {
        let mut state = self.0.up()?;
        let key = owned(key);
        tx.staged().calls.remove(&key);
        state.locked_calls.remove(&key);
        Ok(())
    }
}
