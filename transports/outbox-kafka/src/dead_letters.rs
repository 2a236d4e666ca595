//! The dead-letter topic: rejected records as they came, with Kafka Connect's headers for the cause.

use crate::{
    config::{Cluster, ConfigError},
    handoff::RawRecord,
    headers::{DeadLetterCause, is_dead_letter_header},
    producer::{Outgoing, Producer},
};
use outbox_core::transport::SubscribeError;
use rdkafka::message::{Header, OwnedHeaders};

/// Bytes of a reason that a dead letter keeps.
const MAX_REASON: usize = 1_024;

/// The topic of the dead letters, with its producer.
pub(crate) struct DeadLetterTopic {
    producer: Producer,
    topic: String,
}

impl DeadLetterTopic {
    /// Checks the configuration of the producer. Opens no connection.
    pub(crate) fn new(cluster: &Cluster, topic: String) -> Result<Self, ConfigError> {
        Ok(Self { producer: Producer::new(cluster, &[], Vec::new())?, topic })
    }

    /// Publishes a record as it came, with its cause in headers, and waits for the delivery report.
    pub(crate) async fn publish(
        &self,
        raw: &RawRecord,
        cause: &DeadLetterCause,
    ) -> Result<(), SubscribeError> {
        let headers = raw.headers.iter().filter(|(name, _)| !is_dead_letter_header(name));
        let headers = headers.fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: value.as_ref() })
        });
        let headers = cause.headers().iter().fold(headers, |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let letter = Outgoing {
            topic: self.topic.clone(),
            key: raw.key.clone(),
            headers,
            body: raw.body.clone(),
        };
        let mut outcome = None;
        self.producer.send(&[letter], |_, reported| outcome = Some(reported)).await;
        match outcome {
            Some(Ok(_)) => Ok(()),
            Some(Err(failure)) => {
                Err(SubscribeError(format!("the dead letter: {}", failure.text).into()))
            }
            None => Err(SubscribeError("the dead letter has no delivery report".into())),
        }
    }
}

/// Makes a reason fit for a header: one line, bounded.
pub(crate) fn shortened(reason: &str) -> String {
    let end = (0..=MAX_REASON.min(reason.len()))
        .rev()
        .find(|end| reason.is_char_boundary(*end))
        .unwrap_or(0);
    reason[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
