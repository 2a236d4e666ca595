//! Ack decisions of one delivery, and dead letters.

use super::{AckDecision, Received, Tag};
use crate::{
    classify::{Failure, Kind},
    config::is_fifo,
    headers::{DeadMessage, MAX_ATTRIBUTES, STRING},
    topology::{Directory, PlaceKind},
};
use async_trait::async_trait;
use aws_sdk_sqs::types::MessageAttributeValue;
use outbox_core::transport::{Acknowledge, SubscribeError, one_line};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

/// How long a dead letter that is not confirmed takes: the message is returned, and would come back
/// and be rejected as fast as that goes.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Most bytes of a message.
const MAX_MESSAGE: usize = 1_048_576;

/// What becomes of messages that have their ack decision.
#[derive(Debug, Clone, Default)]
pub(crate) struct AckRules {
    /// Where rejected messages go.
    pub(crate) dead_letters: Option<Arc<str>>,
    /// How long a returned message stays invisible.
    pub(crate) nack_delay: Duration,
}

/// Takes the ack decision of one delivery.
pub(crate) struct AckHandle {
    /// Taken by the ack decision.
    tag: Option<Tag>,
    /// What came, for its dead letter; the message itself is in the delivery.
    received: Received,
    queue: String,
    directory: Arc<Directory>,
    decisions: mpsc::UnboundedSender<AckDecision>,
    rules: AckRules,
}

impl AckHandle {
    pub(crate) fn new(
        tag: Tag,
        received: Received,
        queue: &str,
        directory: &Arc<Directory>,
        decisions: &mpsc::UnboundedSender<AckDecision>,
        rules: &AckRules,
    ) -> Self {
        Self {
            tag: Some(tag),
            received,
            queue: queue.to_owned(),
            directory: directory.clone(),
            decisions: decisions.clone(),
            rules: rules.clone(),
        }
    }

    /// Passes a decision to the task, and waits until it is carried out.
    async fn decide(
        &mut self,
        decision: impl FnOnce(Tag, oneshot::Sender<Result<(), Failure>>) -> AckDecision,
    ) -> Result<(), SubscribeError> {
        let Some(tag) = self.tag.take() else { return Ok(()) };
        let (reply, outcome) = oneshot::channel();
        let ended = || SubscribeError("the subscription has ended".into());
        self.decisions.send(decision(tag, reply)).map_err(|_| ended())?;
        let outcome = outcome.await.map_err(|_| ended())?;
        outcome.map_err(|failure| {
            SubscribeError(format!("{}; the message is delivered again", failure.text).into())
        })
    }

    /// Sends the message to the dead-letter queue and deletes it; one whose dead letter is not
    /// confirmed is returned.
    async fn dead_letter(&mut self, class: &str, reason: &str) -> Result<(), SubscribeError> {
        match self.rules.dead_letters.clone() {
            Some(dead) => {
                if let Err(failure) = self.send_to(&dead, class, reason).await {
                    sleep(REFUSED_PAUSE).await;
                    return Err(SubscribeError(
                        format!("the dead letter: {}", failure.text).into(),
                    ));
                }
            }
            None => tracing::warn!(
                queue = self.queue,
                message = self.received.id,
                reason = one_line(reason),
                "a message was rejected and there is no dead-letter queue; it is deleted"
            ),
        }
        self.decide(AckDecision::Delete).await
    }

    async fn send_to(&self, dead: &str, class: &str, reason: &str) -> Result<(), Failure> {
        let cause = DeadMessage {
            queue: self.queue.clone(),
            deliveries: self.received.deliveries,
            class: class.to_owned(),
            message: reason.to_owned(),
        };
        let url = self.directory.queue(dead).await?;
        let body = &self.received.body;
        let mut request =
            self.directory.clients.sqs.send_message().queue_url(url).message_body(body);
        let kept = self.received.attributes.iter().filter(|(n, _)| !DeadMessage::is_attribute(n));
        let mut attributes: Vec<(String, String)> = kept.cloned().collect();
        let (name, value) = cause.attribute();
        let size: usize = attributes.iter().map(|(n, v)| n.len() + STRING.len() + v.len()).sum();
        let cause_size = name.len() + STRING.len() + value.len();
        if attributes.len() < MAX_ATTRIBUTES && body.len() + size + cause_size <= MAX_MESSAGE {
            attributes.push((name.into_owned(), value));
        } else {
            tracing::warn!(
                queue = dead,
                message = self.received.id,
                reason = one_line(reason),
                "a dead letter has no room for its cause"
            );
        }
        for (name, value) in attributes {
            let value = MessageAttributeValue::builder().data_type(STRING).string_value(value);
            let value = value.build().map_err(|error| Failure::transient(error.to_string()))?;
            request = request.message_attributes(name, value);
        }
        if is_fifo(dead) {
            let group = self.received.group.as_ref().unwrap_or(&self.received.id);
            request = request.message_group_id(group).message_deduplication_id(&self.received.id);
        }
        let sent = self.directory.clients.request("did not confirm", request.send()).await;
        if sent.as_ref().is_err_and(|failure| failure.kind == Kind::Missing) {
            self.directory.forget(PlaceKind::Queue, dead).await;
        }
        sent.map(drop).map_err(|failure| failure.at("queue", dead))
    }
}

#[async_trait]
impl Acknowledge for AckHandle {
    async fn ack(mut self: Box<Self>) -> Result<(), SubscribeError> {
        self.decide(AckDecision::Delete).await
    }

    async fn nack(mut self: Box<Self>, requeue: bool) -> Result<(), SubscribeError> {
        if requeue {
            let delay = self.rules.nack_delay;
            return self.decide(|tag, reply| AckDecision::Return(tag, delay, Some(reply))).await;
        }
        self.dead_letter("NotHandled", "it was not handled and not requeued").await
    }

    async fn reject(mut self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        self.dead_letter("Rejected", reason).await
    }
}

impl Drop for AckHandle {
    /// Returns the message, unless it has its ack decision.
    fn drop(&mut self) {
        if let Some(tag) = self.tag.take() {
            // It fails where the task has ended: its time is up soon.
            let _ = self.decisions.send(AckDecision::Return(tag, Duration::ZERO, None));
        }
    }
}
