//! Transactions in which handlers are tried.

use super::{MemoryStore, MemoryTx};
use crate::outbox::{Store, StoreError, TableChange, TrialEffects, TrialStore};
use async_trait::async_trait;
use std::time::Duration;

#[async_trait]
impl TrialStore<MemoryTx> for MemoryStore {
    async fn begin_trial(&self, _: Duration) -> Result<MemoryTx, StoreError> {
        self.begin().await
    }

    async fn end_trial(&self, tx: MemoryTx, is_done: bool) -> Result<TrialEffects, StoreError> {
        let staged = std::mem::take(&mut *tx.staged());
        let rows = staged.rows.len() as u64;
        let rows = TableChange { table: Some("rows".to_owned()), rows: Some(rows) };
        let refuses = self.0.state().refuse_commits > 0;
        Ok(TrialEffects {
            tables: (rows.rows > Some(0)).then_some(rows).into_iter().collect(),
            events: staged.events,
            refused: Vec::new(),
            not_committable: (is_done && refuses).then(|| "a deadlock's victim".to_owned()),
            notes: Vec::new(),
        })
    }
}
