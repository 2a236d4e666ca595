//! The ack decision of one delivery.

use super::{Inbound, Session, inbound::Unread, pending::Tag};
use crate::{
    classify::{Failure, Loss},
    headers::MqttDeadMessage,
};
use async_trait::async_trait;
use outbox_core::{
    runtime::{Exit, spawn},
    transport::{Acknowledge, SubscribeError, one_line},
};
use rumqttc::mqttbytes::{QoS, v5::Publish};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// How long a message is kept back whose dead letter the server refuses.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// What becomes of messages by their ack decisions.
#[derive(Debug, Clone)]
pub(crate) struct AckRules {
    /// Where rejected messages go.
    pub(crate) dead_letter_topic: Option<Arc<str>>,
    /// After which time a returned message is delivered again.
    pub(crate) nack_delay: Duration,
    /// The client id, which a dead letter names.
    pub(crate) client: Arc<str>,
}

/// Takes the ack decision of one delivery.
pub(crate) struct AckHandle {
    /// Taken by the ack decision.
    pub(crate) tag: Option<Tag>,
    pub(crate) unread: Unread,
    pub(crate) inbound: Arc<Inbound>,
    pub(crate) session: Arc<Session>,
    pub(crate) rules: AckRules,
}

fn error(what: &str, failure: &Failure) -> SubscribeError {
    SubscribeError(format!("{what}{}; the message is delivered again", failure.text).into())
}

impl AckHandle {
    /// Lets the server forget the message, unless its acknowledgement has to wait for those of
    /// earlier ones.
    async fn acknowledge(&mut self) -> Result<(), SubscribeError> {
        if let Some(failure) = self.session.failure() {
            return Err(error("", &failure));
        }
        let Some(tag) = self.tag.take() else { return Ok(()) };
        let Some(due) = self.inbound.done(tag) else {
            return Err(error("", &self.session.lost().await));
        };
        self.session.acknowledge(due).await.map_err(|failure| error("", &failure))
    }

    /// Publishes the message to the topic of dead letters, and lets the server forget the original
    /// when the letter is confirmed; one that is not returns the original.
    async fn dead_letter(
        mut self: Box<Self>,
        class: &'static str,
        reason: String,
    ) -> Result<(), SubscribeError> {
        let topic = super::topic_of(&self.unread.topic);
        if let Some(dead) = &self.rules.dead_letter_topic {
            let cause = MqttDeadMessage {
                topic,
                client: self.rules.client.to_string(),
                class: class.to_owned(),
                message: reason,
            };
            let properties = cause.properties(&self.unread.properties);
            let payload = self.unread.payload.clone();
            let letter = Publish::new(dead.as_ref(), QoS::AtLeastOnce, payload, Some(properties));
            if let Err(failure) = self.session.publish(letter).await {
                if failure.loss == Loss::None {
                    // The message would come back and be refused as fast as it is handled.
                    sleep(REFUSED_PAUSE).await;
                }
                return Err(error("the dead letter: ", &failure));
            }
        } else {
            tracing::warn!(
                topic,
                reason = one_line(&reason),
                "a message was rejected and there is no topic for dead letters; it is acknowledged"
            );
        }
        self.acknowledge().await
    }
}

/// Carries an ack decision out to its end, also where its caller is dropped: the letter would be
/// there, and the message come again.
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

#[async_trait]
impl Acknowledge for AckHandle {
    async fn ack(mut self: Box<Self>) -> Result<(), SubscribeError> {
        self.acknowledge().await
    }

    async fn nack(self: Box<Self>, requeue: bool) -> Result<(), SubscribeError> {
        if requeue {
            // The drop returns it.
            return Ok(());
        }
        let reason = "it was not handled and not returned".to_owned();
        carried_out(self.dead_letter("NotHandled", reason)).await
    }

    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        carried_out(self.dead_letter("Rejected", reason.to_owned())).await
    }
}

impl Drop for AckHandle {
    /// Returns the message, unless it has its ack decision.
    fn drop(&mut self) {
        if let Some(tag) = self.tag.take() {
            self.inbound.requeue(tag, self.rules.nack_delay);
        }
    }
}
