//! What a failure means for its message or for the brokers.

use outbox_core::{
    failure::FailureClass,
    transport::{PublishError, one_line},
};
use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// Classifies an error code of a message.
pub(crate) const fn classify(code: Code) -> FailureClass {
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
        // Not enough replicas, a leader that moves, a timeout, a full queue, and unknown codes.
        _ => FailureClass::Transient,
    }
}

/// Tells whether the brokers may accept a moment later a commit that they have refused: the group is
/// in a rebalance, or its coordinator is away, starts or is late.
pub(crate) const fn commit_may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::RebalanceInProgress
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::WaitingForCoordinator
            | Code::RequestTimedOut
            | Code::OperationTimedOut
            | Code::BrokerTransportFailure
    )
}

/// The errors that a client has had from its brokers since one of them last confirmed a record.
#[derive(Debug, Default)]
pub(crate) struct Health {
    down: AtomicBool,
    last: Mutex<Option<(Code, String)>>,
}

impl Health {
    /// Records an error of a broker or a connection.
    pub(crate) fn record_error(&self, error: &KafkaError, text: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        if !matches!(classify(code), FailureClass::Unavailable) {
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" says less than the error of the last broker.
        if code == Code::AllBrokersDown {
            self.down.store(true, Ordering::Release);
            last.get_or_insert_with(|| (code, one_line(text)));
        } else {
            self.down.fetch_or(code != Code::BrokerTransportFailure, Ordering::AcqRel);
            *last = Some((code, one_line(text)));
        }
    }

    /// Records that a broker has replied or confirmed.
    pub(crate) fn record_success(&self) {
        if self.down.swap(false, Ordering::AcqRel) {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Says why no broker replies, if none does.
    pub(crate) fn outage(&self) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.down.load(Ordering::Acquire).then(|| match last.as_ref() {
            Some((code, text)) => format!("{code}: {text}"),
            None => "no broker replies".to_owned(),
        })
    }

    /// Makes the failure of a message that was not confirmed. A timeout during an outage of all
    /// brokers is no failure of the message.
    pub(crate) fn failure(&self, error: &KafkaError) -> Failure {
        let Some(code) = error.rdkafka_error_code() else {
            let text = format!(
                "the message cannot be encoded for Kafka: {}",
                one_line(&error.to_string())
            );
            return Failure { code: None, class: FailureClass::Permanent, text };
        };
        let (class, text) = match (code, self.outage()) {
            (Code::MessageTimedOut, Some(outage)) => {
                (FailureClass::Unavailable, format!("not confirmed in time: {outage}"))
            }
            (Code::MessageTimedOut, None) => {
                (FailureClass::Transient, "not confirmed in time".to_owned())
            }
            _ => (classify(code), format!("not confirmed: {code}")),
        };
        Failure { code: Some(code), class, text }
    }
}

/// Why a message was not confirmed; several messages may share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Option<Code>,
    pub(crate) class: FailureClass,
    pub(crate) text: String,
}

impl Failure {
    /// The brokers are down, or refuse this client altogether.
    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self { code: None, class: FailureClass::Unavailable, text: text.into() }
    }

    /// No retry of this message can succeed.
    pub(crate) fn permanent(text: impl Into<String>) -> Self {
        Self { code: None, class: FailureClass::Permanent, text: text.into() }
    }
}

impl From<Failure> for PublishError {
    fn from(failure: Failure) -> Self {
        match failure.class {
            FailureClass::Permanent => Self::permanent(failure.text),
            FailureClass::Transient => Self::transient(failure.text),
            FailureClass::Unavailable => Self::unavailable(failure.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass::{Permanent, Transient, Unavailable};

    #[test]
    fn a_failure_of_one_message_is_told_from_a_failure_of_the_client() {
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
            assert_eq!(classify(code), expected, "{code:?}");
        }
    }

    #[test]
    fn a_commit_is_repeated_where_the_group_is_not_ready_and_not_where_the_member_is_out_of_it() {
        for (code, expected) in [
            (Code::RebalanceInProgress, true),
            (Code::CoordinatorLoadInProgress, true),
            (Code::NotCoordinator, true),
            (Code::RequestTimedOut, true),
            (Code::BrokerTransportFailure, true),
            (Code::IllegalGeneration, false),
            (Code::UnknownMemberId, false),
            (Code::FencedInstanceId, false),
            (Code::GroupAuthorizationFailed, false),
            (Code::UnknownTopicOrPartition, false),
            (Code::Fatal, false),
        ] {
            assert_eq!(commit_may_pass(code), expected, "{code:?}");
        }
    }

    #[test]
    fn a_timeout_during_an_outage_of_all_brokers_is_no_failure_of_the_message() {
        let (health, late) =
            (Health::default(), KafkaError::MessageProduction(Code::MessageTimedOut));
        assert_eq!(health.failure(&late).class, Transient);
        health.record_error(
            &KafkaError::Global(Code::BrokerTransportFailure),
            "connect to 127.0.0.1:1 failed:\n refused",
        );
        assert_eq!(health.failure(&late).class, Transient, "another broker may be up");
        health.record_error(&KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        let failure = health.failure(&late);
        assert_eq!(failure.class, Unavailable);
        assert!(failure.text.contains("127.0.0.1:1 failed:  refused"), "{failure:?}");
        health.record_success();
        assert_eq!((health.failure(&late).class, health.outage()), (Transient, None));
    }
}
