//! The outbox as the store of consumers.

use super::Outbox;
use crate::{error::database, transaction::OutboxTransaction};
use async_trait::async_trait;
use bytes::Bytes;
use outbox_core::{
    failure::DeadLetter,
    outbox::{
        Admission, Awaited, AwaitedBy, BarrierStore, ClaimQuery, CommandKey, CommandOutcome,
        ConsumerStore, Deferral, DeferredDelivery, DeliveryClaim, HandlerNameStore, HandoverStore,
        InboxKey, InstanceRow, InstanceStore, NewInstance, ReceivedLetter, RecordedCommand,
        RetrierStore, Store, StoreError, StoredDelivery, StoredReply,
    },
    saga::CommandHash,
};
use std::{sync::Arc, time::Duration};

#[async_trait]
impl BarrierStore for Outbox {
    async fn record_command(
        &self,
        tx: &OutboxTransaction,
        key: CommandKey<'_>,
        command: Option<CommandHash>,
        outcome: CommandOutcome,
    ) -> Result<Option<RecordedCommand>, StoreError> {
        let recorded = self.0.schema.record_command(tx, key, command, outcome).await?;
        recorded.map(|recorded| self.with_clear_reply(key, recorded)).transpose()
    }

    async fn store_reply(
        &self,
        tx: &OutboxTransaction,
        key: CommandKey<'_>,
        outcome: CommandOutcome,
        answer: &StoredReply,
    ) -> Result<(), StoreError> {
        let answer = self.encoded_reply(key, answer)?;
        self.0.schema.store_reply(tx, key, outcome, &answer).await
    }

    async fn remove_command(
        &self,
        tx: &OutboxTransaction,
        key: CommandKey<'_>,
    ) -> Result<(), StoreError> {
        self.0.schema.remove_command(tx, key).await
    }
}

#[async_trait]
impl ConsumerStore for Outbox {
    async fn admit(
        &self,
        tx: &OutboxTransaction,
        key: InboxKey<'_>,
        order_hash: Option<i64>,
    ) -> Result<Admission, StoreError> {
        tx.bounded("the inbox", self.0.schema.admit(tx, key, order_hash)).await.map_err(database)
    }

    async fn admit_all(
        &self,
        tx: &OutboxTransaction,
        keys: &[(InboxKey<'_>, Option<i64>)],
    ) -> Result<Vec<bool>, StoreError> {
        tx.bounded("the inbox", self.0.schema.admit_all(tx, keys)).await.map_err(database)
    }

    async fn begin_shared(&self, limit: Duration) -> Result<OutboxTransaction, StoreError> {
        Ok(self.begin_work_within(limit).await?)
    }

    async fn commit_shared(
        &self,
        tx: OutboxTransaction,
        limit: Duration,
    ) -> Result<(), StoreError> {
        Ok(tx.commit_within(limit).await?)
    }

    async fn check_intact(&self, tx: &OutboxTransaction) -> Result<(), StoreError> {
        Ok(tx.check_intact().await?)
    }

    async fn begin_with_deferred_lock(
        &self,
        key: InboxKey<'_>,
        order_hash: Option<i64>,
    ) -> Result<Option<(Admission, OutboxTransaction)>, StoreError> {
        if !self.has_one_writer() {
            return Ok(None);
        }
        // Read before the transaction, whose first read fixes its snapshot: a later write of
        // another connection would then make its own write fail.
        let admission =
            self.0.schema.admission(&*self.0.work, key, order_hash).await.map_err(database)?;
        Ok(Some((admission, self.begin_work_deferred(None).await?)))
    }

    async fn is_received(&self, key: InboxKey<'_>) -> Result<bool, StoreError> {
        self.0.schema.is_received(&*self.0.work, key).await.map_err(database)
    }

    async fn defer(
        &self,
        tx: &OutboxTransaction,
        delivery: &DeferredDelivery<'_>,
    ) -> Result<bool, StoreError> {
        match tx.bounded("the database", self.0.schema.defer(tx, delivery)).await {
            Ok(stored) => Ok(stored),
            Err(error) => Err(self
                .refused_if_too_large(delivery.message.payload.len(), database(error))
                .await),
        }
    }

    async fn write_dead_letter(
        &self,
        tx: &OutboxTransaction,
        letter: &ReceivedLetter<'_>,
    ) -> Result<DeadLetter, StoreError> {
        match tx.bounded("the database", self.0.schema.write_dead_letter(tx, letter)).await {
            Ok(letter) => Ok(letter),
            Err(error) => {
                let payload = letter
                    .message
                    .map_or_else(|raw| raw.map_or(0, Bytes::len), |message| message.payload.len());
                Err(self.refused_if_too_large(payload, error).await)
            }
        }
    }

    async fn begin_nested(&self, tx: &OutboxTransaction) -> Result<OutboxTransaction, StoreError> {
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
        self.0
            .schema
            .register_instance(&*self.0.heartbeat_pool, instance, lease)
            .await
            .map_err(database)
    }

    async fn renew_instance(&self, id: &str, lease: Duration) -> Result<bool, StoreError> {
        self.0.schema.renew_instance(&*self.0.heartbeat_pool, id, lease).await.map_err(database)
    }

    async fn instances(&self, consumer: &str) -> Result<Vec<InstanceRow>, StoreError> {
        self.0.schema.instances(&*self.0.heartbeat_pool, consumer).await.map_err(database)
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
    ) -> Result<Option<DeliveryClaim>, StoreError> {
        self.0.schema.claim_new(&*self.0.work, key, by, lease).await.map_err(database)
    }

    async fn begin_stored(&self) -> Result<OutboxTransaction, StoreError> {
        Ok(self.begin_read_committed().await?)
    }

    async fn extend_claim(
        &self,
        claim: &DeliveryClaim,
        lease: Duration,
        begins: bool,
    ) -> Result<bool, StoreError> {
        self.0
            .schema
            .extend_claim(&*self.0.heartbeat_pool, claim, lease, begins)
            .await
            .map_err(database)
    }

    async fn finish(
        &self,
        tx: &OutboxTransaction,
        claim: &DeliveryClaim,
    ) -> Result<bool, StoreError> {
        tx.bounded("the database", self.0.schema.finish_delivery(tx, claim)).await.map_err(database)
    }

    async fn reschedule(
        &self,
        claim: &DeliveryClaim,
        deferral: Option<Deferral<'_>>,
    ) -> Result<bool, StoreError> {
        self.0
            .schema
            .reschedule_delivery(&*self.0.work, claim, deferral, None)
            .await
            .map_err(database)
    }

    async fn prune_inbox(&self, limit: u32) -> Result<u64, StoreError> {
        self.0.schema.prune_received(&*self.0.work, limit).await.map_err(database)
    }
}

#[async_trait]
impl HandoverStore for Outbox {
    async fn hand_over(
        &self,
        tx: &OutboxTransaction,
        delivery: &DeferredDelivery<'_>,
        awaited: Option<&Awaited>,
    ) -> Result<(), StoreError> {
        match tx.bounded("the database", self.0.schema.hand_over(tx, delivery, awaited)).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self
                .refused_if_too_large(delivery.message.payload.len(), database(error))
                .await),
        }
    }

    async fn hand_over_claimed(
        &self,
        claim: &DeliveryClaim,
        deferral: Deferral<'_>,
        awaited: Option<&Awaited>,
    ) -> Result<bool, StoreError> {
        let (schema, work) = (&self.0.schema, &*self.0.work);
        schema
            .reschedule_delivery(work, claim, Some(deferral), Some(awaited))
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
        let work = self.0.work.long_statements();
        self.0.schema.under_other_names(&work, consumer, handlers).await.map_err(database)
    }

    async fn hand_over_all(
        &self,
        consumer: &str,
        handler: &str,
        due_in: Duration,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let work = self.0.work.long_statements();
        self.0
            .schema
            .hand_over_all(&work, (consumer, handler), due_in, limit)
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
        let work = self.0.work.long_statements();
        self.0.schema.rename_handler(&work, consumer, (from, to), limit).await.map_err(database)
    }
}

/// Bytes of a statement beside a payload: strings, headers, errors.
const BESIDE_PAYLOAD: usize = 16 * 1024;
/// Smallest payload that may be too large for a server: none has a lower limit.
const LARGE: usize = 64 * 1024;

impl Outbox {
    /// Turns the error of a payload that is too large into a refusal: MySQL and MariaDB end the
    /// connection over a statement that is larger than a packet, so that a retry would never
    /// succeed.
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
