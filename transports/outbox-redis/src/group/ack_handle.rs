//! Ack decisions: XACK, dead letters, and returns.

use super::{commands::add, membership::Membership, pending::DeliveryTag};
use crate::{
    classify::{Failure, Kind},
    connection::RedisConnection,
    headers::{DeadEntry, Field},
};
use async_trait::async_trait;
use futures_util::future::join;
use outbox_core::{
    runtime::{Exit, spawn},
    transport::{Acknowledge, SubscribeError, one_line},
};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// How long an ack decision that the server refuses takes.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// What becomes of entries that have their ack decision.
#[derive(Debug, Clone, Default)]
pub(crate) struct AckRules {
    /// Where rejected entries go.
    pub(crate) dead_letter_stream: Option<Arc<str>>,
    /// Whether acknowledged entries are deleted from their stream.
    pub(crate) deletes: bool,
}

/// Takes the ack decision of one delivery.
pub(crate) struct AckHandle {
    /// Taken by the ack decision.
    pub(crate) tag: Option<DeliveryTag>,
    pub(crate) deliveries: u32,
    pub(crate) fields: Arc<[Field]>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) rules: AckRules,
}

impl AckHandle {
    fn connection(&self) -> Result<Arc<RedisConnection>, SubscribeError> {
        let connection = self.membership.handoff.state().connection.clone();
        let connection = connection.filter(|connection| connection.is_usable());
        let lost = "the connection is lost; the entry is delivered again";
        connection.ok_or_else(|| SubscribeError(lost.into()))
    }

    /// Acknowledges the entry. One whose acknowledgement has no reply is requeued.
    async fn acknowledge(&mut self, connection: &RedisConnection) -> Result<(), SubscribeError> {
        let Some(tag) = self.tag else { return Ok(()) };
        let group = &self.membership.group;
        let ids = [tag.id];
        let ack = group.acknowledge(connection, tag.stream, &ids);
        let acknowledged = if self.rules.deletes {
            let (acknowledged, deleted) =
                join(ack, group.delete(connection, tag.stream, tag.id)).await;
            if let Err(failure) = deleted {
                tracing::debug!(error = failure.text, "deleting an acknowledged entry failed");
            }
            acknowledged
        } else {
            ack.await
        };
        let removed = match acknowledged {
            Ok(removed) => removed,
            Err(failure) => return Err(refused(failure, "").await),
        };
        self.tag = None;
        self.membership.handoff.done(&tag);
        if removed > 0 {
            return Ok(());
        }
        let late = "the entry was no longer pending: another consumer has claimed and acknowledged it, or the group was made again";
        Err(SubscribeError(late.into()))
    }

    /// Adds the entry to the dead-letter stream and acknowledges it; an entry whose dead letter has
    /// no reply is requeued.
    async fn dead_letter(
        mut self: Box<Self>,
        class: &'static str,
        reason: String,
    ) -> Result<(), SubscribeError> {
        let connection = self.connection()?;
        let Some(tag) = self.tag else { return Ok(()) };
        let stream = &self.membership.group.streams[tag.stream];
        if let Some(dead) = &self.rules.dead_letter_stream {
            let cause = DeadEntry {
                stream: stream.clone(),
                entry: tag.id.to_string(),
                group: self.membership.group.name.clone(),
                deliveries: self.deliveries,
                class: class.to_owned(),
                message: reason,
            };
            let added = add(&connection, dead, &cause.fields(&self.fields)).await;
            if let Err(failure) = added {
                return Err(refused(failure, "the dead letter: ").await);
            }
        } else {
            tracing::warn!(
                stream,
                entry = %tag.id,
                reason = one_line(&reason),
                "an entry was rejected and there is no dead-letter stream; it is acknowledged"
            );
        }
        self.acknowledge(&connection).await
    }
}

/// Carries an ack decision out to its end, also where its caller is dropped: the entry would be
/// delivered again, though the server may have acknowledged it.
async fn carried_out(
    decision: impl Future<Output = Result<(), SubscribeError>> + Send + 'static,
) -> Result<(), SubscribeError> {
    match spawn(decision).await {
        Exit::Finished(result) => result,
        Exit::Panicked(_) | Exit::Cancelled => {
            Err(SubscribeError("the ack decision was not carried out".into()))
        }
    }
}

/// Makes the error of an ack decision that the server did not take. Where the server is there and
/// refuses, waits: the entry is requeued, and would come back and be refused as fast as it is
/// handled.
async fn refused(failure: Failure, what: &str) -> SubscribeError {
    if failure.kind != Kind::Lost {
        sleep(REFUSED_PAUSE).await;
    }
    SubscribeError(format!("{what}{}", failure.text).into())
}

#[async_trait]
impl Acknowledge for AckHandle {
    async fn ack(mut self: Box<Self>) -> Result<(), SubscribeError> {
        carried_out(async move {
            let connection = self.connection()?;
            self.acknowledge(&connection).await
        })
        .await
    }

    async fn nack(self: Box<Self>, requeue: bool) -> Result<(), SubscribeError> {
        if requeue {
            // The drop requeues it.
            return Ok(());
        }
        carried_out(self.dead_letter("NotHandled", "it was not handled and not requeued".into()))
            .await
    }

    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        carried_out(self.dead_letter("Rejected", reason.to_owned())).await
    }
}

impl Drop for AckHandle {
    /// Requeues the entry, unless it has its ack decision.
    fn drop(&mut self) {
        if let Some(tag) = self.tag.take() {
            self.membership.requeue(tag);
        }
    }
}
