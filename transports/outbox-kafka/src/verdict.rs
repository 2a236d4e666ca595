//! Which failure means what.

use outbox_core::{failure::FailureClass, transport::PublishError};
use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// Characters of the library's own words that are kept.
const MAX_WORDS: usize = 256;

/// Says what an error code means for the message that it was told of.
pub(crate) const fn class(code: Code) -> FailureClass {
    match code {
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidTopic
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::UnsupportedForMessageFormat
        | Code::PolicyViolation => FailureClass::Permanent,
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::BrokerNotAvailable
        | Code::Resolve
        | Code::SSL
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::Fatal
        | Code::PurgeQueue
        | Code::PurgeInflight
        | Code::UnsupportedVersion
        | Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::ProducerFenced
        | Code::KafkaStorageError
        | Code::UnsupportedFeature
        | Code::UnsupportedCompressionType => FailureClass::Unavailable,
        // Not enough replicas, a leader that moves, a time that ran out, a queue that is full, and what nobody knows.
        _ => FailureClass::Transient,
    }
}

/// What a client has heard of its brokers since one of them last confirmed anything.
#[derive(Debug, Default)]
pub(crate) struct Health {
    down: AtomicBool,
    last: Mutex<Option<(Code, String)>>,
}

impl Health {
    /// Notes an error that speaks of no message.
    pub(crate) fn note(&self, error: &KafkaError, words: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        if !matches!(class(code), FailureClass::Unavailable) {
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // That all are down says less than why the last one is.
        if code == Code::AllBrokersDown {
            self.down.store(true, Ordering::Release);
            last.get_or_insert_with(|| (code, plain(words)));
        } else {
            self.down.fetch_or(code != Code::BrokerTransportFailure, Ordering::AcqRel);
            *last = Some((code, plain(words)));
        }
    }

    /// Notes that a broker has confirmed.
    pub(crate) fn well(&self) {
        if self.down.swap(false, Ordering::AcqRel) {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Says why no broker answers, if none does.
    pub(crate) fn trouble(&self) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.down.load(Ordering::Acquire).then(|| match last.as_ref() {
            Some((code, words)) => format!("{code}: {words}"),
            None => "no broker answers".to_owned(),
        })
    }

    /// Says what became of a message that was not confirmed. A time that ran out while no broker answers says nothing of the
    /// message.
    pub(crate) fn verdict(&self, error: &KafkaError) -> Refused {
        let Some(code) = error.rdkafka_error_code() else {
            let text =
                format!("the message cannot be written for Kafka: {}", plain(&error.to_string()));
            return Refused { code: None, class: FailureClass::Permanent, text };
        };
        let (class, text) = match (code, self.trouble()) {
            (Code::MessageTimedOut, Some(trouble)) => {
                (FailureClass::Unavailable, format!("not confirmed in time: {trouble}"))
            }
            (Code::MessageTimedOut, None) => {
                (FailureClass::Transient, "not confirmed in time".to_owned())
            }
            _ => (class(code), format!("not confirmed: {code}")),
        };
        Refused { code: Some(code), class, text }
    }
}

/// Why a message was not confirmed; several may share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: Option<Code>,
    pub(crate) class: FailureClass,
    pub(crate) text: String,
}

impl Refused {
    /// The brokers are down, or do not let us publish at all.
    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self { code: None, class: FailureClass::Unavailable, text: text.into() }
    }

    /// This message may go later.
    pub(crate) fn transient(text: impl Into<String>) -> Self {
        Self { code: None, class: FailureClass::Transient, text: text.into() }
    }

    /// This message can never go.
    pub(crate) fn permanent(text: impl Into<String>) -> Self {
        Self { code: None, class: FailureClass::Permanent, text: text.into() }
    }
}

impl From<Refused> for PublishError {
    fn from(refused: Refused) -> Self {
        match refused.class {
            FailureClass::Permanent => Self::permanent(refused.text),
            FailureClass::Transient => Self::transient(refused.text),
            FailureClass::Unavailable => Self::unavailable(refused.text),
        }
    }
}

/// Makes words fit for a log: one line, bounded.
pub(crate) fn plain(words: &str) -> String {
    words.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass::{Permanent, Transient, Unavailable};

    #[test]
    fn what_the_broker_says_of_a_message_is_told_from_what_it_says_of_us() {
        for (code, expected) in [
            (Code::MessageSizeTooLarge, Permanent),
            (Code::InvalidTopic, Permanent),
            (Code::InvalidRecord, Permanent),
            (Code::NotEnoughReplicas, Transient),
            (Code::NotEnoughReplicasAfterAppend, Transient),
            (Code::RequestTimedOut, Transient),
            (Code::NotLeaderForPartition, Transient),
            (Code::LeaderNotAvailable, Transient),
            (Code::QueueFull, Transient),
            (Code::Unknown, Transient),
            (Code::AllBrokersDown, Unavailable),
            (Code::SaslAuthenticationFailed, Unavailable),
            (Code::TopicAuthorizationFailed, Unavailable),
            (Code::UnknownTopicOrPartition, Unavailable),
            (Code::Fatal, Unavailable),
        ] {
            assert_eq!(class(code), expected, "{code:?}");
        }
    }

    #[test]
    fn a_time_that_ran_out_while_no_broker_answers_says_nothing_of_the_message() {
        let (health, late) =
            (Health::default(), KafkaError::MessageProduction(Code::MessageTimedOut));
        assert_eq!(health.verdict(&late).class, Transient);
        health.note(
            &KafkaError::Global(Code::BrokerTransportFailure),
            "connect to 127.0.0.1:1 failed:\n refused",
        );
        assert_eq!(health.verdict(&late).class, Transient, "another broker may be well");
        health.note(&KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        let verdict = health.verdict(&late);
        assert_eq!(verdict.class, Unavailable);
        assert!(verdict.text.contains("127.0.0.1:1 failed:  refused"), "{verdict:?}");
        health.well();
        assert_eq!((health.verdict(&late).class, health.trouble()), (Transient, None));
    }
}
