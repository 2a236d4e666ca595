//! What consumers need of an outbox.

use super::Outbox;
use crate::{error::OutboxError, transaction::OutboxTransaction};
use async_trait::async_trait;
use bytes::Bytes;
use outbox_core::{
    failure::DeadLetter,
    outbox::{
        Admission, Awaited, AwaitedBy, BarrierStore, CallAnswer, CallKey, CallOutcome, Claim,
        ClaimQuery, ConsumerStore, HandlerNameStore, HandoverStore, InboxKey, InstanceRow,
        InstanceStore, KnownCall, NewInstance, Postponed, PutBy, ReceivedLetter, RetrierStore,
        Store, StoreError, StoredDelivery,
    },
    saga::CommandHash,
};
use sea_orm::{DbErr, IsolationLevel};
use std::{sync::Arc, time::Duration};

#[async_trait]
impl BarrierStore for Outbox {
    async fn note_call(
        &self,
        tx: &OutboxTransaction,
        key: CallKey<'_>,
        command: Option<CommandHash>,
        outcome: CallOutcome,
    ) -> Result<Option<KnownCall>, StoreError> {
        self.0.schema.note_call(tx, key, command, outcome).await
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

    async fn unnote_call(
        &self,
        tx: &OutboxTransaction,
        key: CallKey<'_>,
    ) -> Result<(), StoreError> {
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
        tx.bounded("the inbox", self.0.schema.admit(tx, key, lane)).await.map_err(database)
    }

    async fn begin_deferred(
        &self,
        key: InboxKey<'_>,
        lane: Option<i64>,
    ) -> Result<Option<(Admission, OutboxTransaction)>, StoreError> {
        if !self.has_one_writer() {
            return Ok(None);
        }
        // Before the transaction, whose first read fixes what it sees: a write of somebody else would make its own fail then.
        let known = self.0.schema.admission(&*self.0.work, key, lane).await.map_err(database)?;
        Ok(Some((known, self.begin_work_deferred().await?)))
    }

    async fn is_received(&self, key: InboxKey<'_>) -> Result<bool, StoreError> {
        self.0.schema.is_received(&*self.0.work, key).await.map_err(database)
    }

    async fn put_by(
        &self,
        tx: &OutboxTransaction,
        delivery: &PutBy<'_>,
    ) -> Result<bool, StoreError> {
        match tx.bounded("the database", self.0.schema.put_by(tx, delivery)).await {
            Ok(stored) => Ok(stored),
            Err(error) => Err(self
                .refused_if_too_large(delivery.message.payload.len(), database(error))
                .await),
        }
    }

    async fn bury(
        &self,
        tx: &OutboxTransaction,
        letter: &ReceivedLetter<'_>,
    ) -> Result<DeadLetter, StoreError> {
        match tx.bounded("the database", self.0.schema.bury(tx, letter)).await {
            Ok(letter) => Ok(letter),
            Err(error) => {
                let payload = letter
                    .message
                    .map_or_else(|raw| raw.map_or(0, Bytes::len), |message| message.payload.len());
                Err(self.refused_if_too_large(payload, error).await)
            }
        }
    }

    async fn nest(&self, tx: &OutboxTransaction) -> Result<OutboxTransaction, StoreError> {
        Ok(tx.begin().await?)
    }

    fn inbox_retention(&self) -> Duration {
        self.0.retentions.inbox
    }
}

#[async_trait]
impl InstanceStore for Outbox {
    async fn register_instance(
        &self,
        instance: &NewInstance<'_>,
        lease: Duration,
    ) -> Result<(), StoreError> {
        self.0.schema.register_instance(&*self.0.signs, instance, lease).await.map_err(database)
    }

    async fn renew_instance(&self, id: &str, lease: Duration) -> Result<bool, StoreError> {
        self.0.schema.renew_instance(&*self.0.signs, id, lease).await.map_err(database)
    }

    async fn instances(&self, consumer: &str) -> Result<Vec<InstanceRow>, StoreError> {
        self.0.schema.instances(&*self.0.signs, consumer).await.map_err(database)
    }

    async fn remove_instance(&self, id: &str, if_expired: bool) -> Result<(), StoreError> {
        self.0.schema.remove_instance(&*self.0.work, id, if_expired).await.map_err(database)
    }
}

#[async_trait]
impl RetrierStore for Outbox {
    async fn claim(&self, query: &ClaimQuery<'_>) -> Result<Vec<StoredDelivery>, StoreError> {
        self.0.schema.claim_deliveries(&*self.0.work, query).await.map_err(database)
    }

    async fn claim_new(
        &self,
        key: InboxKey<'_>,
        by: &Arc<str>,
        lease: Duration,
    ) -> Result<Option<Claim>, StoreError> {
        self.0.schema.claim_new(&*self.0.work, key, by, lease).await.map_err(database)
    }

    async fn begin_stored(&self) -> Result<OutboxTransaction, StoreError> {
        Ok(self.begin_work(Some(IsolationLevel::ReadCommitted)).await?)
    }

    async fn prolong(
        &self,
        claim: &Claim,
        lease: Duration,
        begins: bool,
    ) -> Result<bool, StoreError> {
        self.0.schema.prolong_claim(&*self.0.signs, claim, lease, begins).await.map_err(database)
    }

    async fn finish(&self, tx: &OutboxTransaction, claim: &Claim) -> Result<bool, StoreError> {
        tx.bounded("the database", self.0.schema.finish_delivery(tx, claim)).await.map_err(database)
    }

    async fn postpone(
        &self,
        claim: &Claim,
        postponed: Option<Postponed<'_>>,
    ) -> Result<bool, StoreError> {
        self.0
            .schema
            .postpone_delivery(&*self.0.work, claim, postponed, None)
            .await
            .map_err(database)
    }

    async fn forget(&self, limit: u32) -> Result<u64, StoreError> {
        self.0.schema.forget_received(&*self.0.work, limit).await.map_err(database)
    }
}

#[async_trait]
impl HandoverStore for Outbox {
    async fn leave(
        &self,
        tx: &OutboxTransaction,
        delivery: &PutBy<'_>,
        awaited: Option<&Awaited>,
    ) -> Result<(), StoreError> {
        match tx.bounded("the database", self.0.schema.leave(tx, delivery, awaited)).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self
                .refused_if_too_large(delivery.message.payload.len(), database(error))
                .await),
        }
    }

    async fn leave_claimed(
        &self,
        claim: &Claim,
        postponed: Postponed<'_>,
        awaited: Option<&Awaited>,
    ) -> Result<bool, StoreError> {
        let (schema, work) = (&self.0.schema, &*self.0.work);
        schema
            .postpone_delivery(work, claim, Some(postponed), Some(awaited))
            .await
            .map_err(database)
    }

    async fn awaited(&self, consumer: &str) -> Result<Vec<AwaitedBy>, StoreError> {
        self.0.schema.awaited(&*self.0.work, consumer).await.map_err(database)
    }

    async fn claim_awaited(
        &self,
        query: &ClaimQuery<'_>,
        known: &[AwaitedBy],
    ) -> Result<Vec<StoredDelivery>, StoreError> {
        self.0.schema.claim_awaited(&*self.0.work, query, known).await.map_err(database)
    }
}

#[async_trait]
impl HandlerNameStore for Outbox {
    async fn under_other_names(
        &self,
        consumer: &str,
        handlers: &[Arc<str>],
    ) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        self.0.schema.under_other_names(&*self.0.work, consumer, handlers).await.map_err(database)
    }

    async fn leave_all(
        &self,
        consumer: &str,
        handler: &str,
        due_in: Duration,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.0
            .schema
            .leave_all(&*self.0.work, (consumer, handler), due_in, limit)
            .await
            .map_err(database)
    }

    async fn rename_handler(
        &self,
        consumer: &str,
        from: &str,
        to: &str,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.0
            .schema
            .rename_handler(&*self.0.work, consumer, (from, to), limit)
            .await
            .map_err(database)
    }
}

/// What a statement has beside a payload: texts, headers, errors.
const BESIDE_PAYLOAD: usize = 16 * 1024;
/// Payloads for which the database is asked whether they were too large: no server takes less.
const LARGE: usize = 64 * 1024;

impl Outbox {
    /// Tells a payload that the database cannot take from a database that is away: MySQL and MariaDB end the connection over a
    /// statement that is larger than a packet, so that the same would happen for ever.
    async fn refused_if_too_large(&self, payload: usize, error: StoreError) -> StoreError {
        if payload < LARGE || !matches!(error, StoreError::Unavailable(_)) {
            return error;
        }
        match self.0.schema.largest_packet(&*self.0.work).await {
            Ok(Some(limit)) if payload + BESIDE_PAYLOAD > limit => StoreError::Refused(
                format!("a payload of {payload} bytes, where max_allowed_packet is {limit}: the server takes no more")
                    .into(),
            ),
            _ => error,
        }
    }
}

fn database(error: DbErr) -> StoreError {
    OutboxError::Database(error).into()
}
