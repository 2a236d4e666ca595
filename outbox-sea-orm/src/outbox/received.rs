//! What consumers need of an outbox.

use super::Outbox;
use crate::{error::OutboxError, transaction::OutboxTransaction};
use async_trait::async_trait;
use outbox_core::{
    failure::DeadLetter,
    outbox::{
        Admission, BarrierStore, CallAnswer, CallKey, CallOutcome, Claim, ClaimQuery, ConsumerStore, InboxKey,
        KnownCall, Postponed, PutBy, ReceivedLetter, RetrierStore, StoreError, StoredDelivery,
    },
};
use sea_orm::{DbErr, IsolationLevel, TransactionOptions};
use std::time::Duration;

#[async_trait]
impl BarrierStore for Outbox {
    async fn note_call(
        &self,
        tx: &OutboxTransaction,
        key: CallKey<'_>,
        outcome: CallOutcome,
    ) -> Result<Option<KnownCall>, StoreError> {
        self.0.schema.note_call(tx, key, outcome).await
    }

    async fn keep_answer(
        &self,
        tx: &OutboxTransaction,
        key: CallKey<'_>,
        outcome: CallOutcome,
        answer: &CallAnswer,
    ) -> Result<(), StoreError> {
        self.0.schema.keep_answer(tx, key, outcome, answer).await
    }

    async fn unnote_call(&self, tx: &OutboxTransaction, key: CallKey<'_>) -> Result<(), StoreError> {
        self.0.schema.unnote_call(tx, key).await
    }
}

#[async_trait]
impl ConsumerStore for Outbox {
    async fn admit(
        &self,
        tx: &OutboxTransaction,
        key: InboxKey<'_>,
        lane: Option<i64>,
    ) -> Result<Admission, StoreError> {
        self.0.schema.admit(tx, key, lane).await.map_err(database)
    }

    async fn put_by(&self, tx: &OutboxTransaction, delivery: &PutBy<'_>) -> Result<bool, StoreError> {
        self.0.schema.put_by(tx, delivery).await.map_err(database)
    }

    async fn bury(&self, tx: &OutboxTransaction, letter: &ReceivedLetter<'_>) -> Result<DeadLetter, StoreError> {
        self.0.schema.bury(tx, letter).await
    }

    async fn nest(&self, tx: &OutboxTransaction) -> Result<OutboxTransaction, StoreError> {
        Ok(tx.begin().await?)
    }

    fn inbox_retention(&self) -> Duration {
        self.0.inbox_retention
    }
}

#[async_trait]
impl RetrierStore for Outbox {
    async fn claim(&self, query: &ClaimQuery<'_>) -> Result<Vec<StoredDelivery>, StoreError> {
        self.0.schema.claim_deliveries(&self.0.db, query).await.map_err(database)
    }

    async fn begin_stored(&self) -> Result<OutboxTransaction, StoreError> {
        let isolation_level = Some(IsolationLevel::ReadCommitted);
        Ok(self.begin_with(TransactionOptions { isolation_level, ..TransactionOptions::default() }).await?)
    }

    async fn prolong(&self, claim: &Claim, lease: Duration, begins: bool) -> Result<bool, StoreError> {
        self.0.schema.prolong_claim(&self.0.db, claim, lease, begins).await.map_err(database)
    }

    async fn finish(&self, tx: &OutboxTransaction, claim: &Claim) -> Result<bool, StoreError> {
        self.0.schema.finish_delivery(tx, claim).await.map_err(database)
    }

    async fn postpone(&self, claim: &Claim, postponed: Option<Postponed<'_>>) -> Result<bool, StoreError> {
        self.0.schema.postpone_delivery(&self.0.db, claim, postponed).await.map_err(database)
    }

    async fn forget(&self, limit: u32) -> Result<u64, StoreError> {
        self.0.schema.forget_received(&self.0.db, limit).await.map_err(database)
    }
}

fn database(error: DbErr) -> StoreError {
    OutboxError::Database(error).into()
}
