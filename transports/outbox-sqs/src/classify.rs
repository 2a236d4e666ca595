//! What a failure means for its message or for the service.

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use outbox_core::{
    failure::{FailureClass, full_text},
    transport::{PublishError, SubscribeError, one_line},
};
use std::{error::Error, time::Duration};

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The queue or topic does not exist.
    Missing,
    /// The service replied, and refuses this sender or this receiver.
    Refused,
    /// Anything else.
    Other,
}

/// A failure that several messages may share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) class: FailureClass,
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

impl Failure {
    const fn new(class: FailureClass, text: String) -> Self {
        Self { class, kind: Kind::Other, text }
    }

    /// No retry of this message can succeed.
    pub(crate) fn permanent(text: impl Into<String>) -> Self {
        Self::new(FailureClass::Permanent, text.into())
    }

    /// A later retry of this message may succeed.
    pub(crate) fn transient(text: impl Into<String>) -> Self {
        Self::new(FailureClass::Transient, text.into())
    }

    /// The service is down, or refuses this client altogether.
    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self::new(FailureClass::Unavailable, text.into())
    }

    /// The service did not reply in time; `omission` says what it did not do.
    pub(crate) fn timed_out(omission: &str, waited: Duration) -> Self {
        Self::unavailable(format!("the service {omission} within {waited:?}"))
    }

    /// Classifies a request that failed as a whole.
    pub(crate) fn from_sdk<E>(error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                let meta = service.err().meta();
                let code = meta.code().unwrap_or("without a code");
                Self::from_service(code, meta.message().unwrap_or_default(), status)
            }
            SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) => {
                Self::unavailable(format!("no connection to the service: {}", cause(error)))
            }
            SdkError::ResponseError(response) => Self::unavailable(format!(
                "the service replied {} in a form that is not its own: {}",
                response.raw().status().as_u16(),
                cause(error)
            )),
            _ => Self::unavailable(format!("the request cannot be made: {}", cause(error))),
        }
    }

    /// Classifies an error of the service by its code.
    fn from_service(code: &str, message: &str, status: u16) -> Self {
        let name = code_name(code);
        // The service quotes the canonical request here, with a session token.
        let message = if name.contains("Signature") { "" } else { message };
        let text = said("the service replied", code, message);
        let (class, kind, advice) = meaning(name, status);
        let text = if advice.is_empty() { text } else { format!("{text}; {advice}") };
        let failure = Self { class, kind, text };
        if message.starts_with(WRONG_TOPIC) { failure.of_place() } else { failure }
    }

    /// Classifies the failure of one entry of a batch. An entry that the service fails by itself is
    /// for now; what the sender did wrong is for ever, unless its code says otherwise.
    pub(crate) fn from_entry(code: &str, message: &str, sender_fault: bool) -> Self {
        let (class, kind, advice) = meaning(code_name(code), 0);
        let text = said("the service refused the entry:", code, message);
        let text = if advice.is_empty() { text } else { format!("{text}; {advice}") };
        let class = match class {
            FailureClass::Transient if sender_fault => FailureClass::Permanent,
            FailureClass::Permanent if !sender_fault => FailureClass::Transient,
            class => class,
        };
        Self { class, kind, text }
    }

    /// Says that a failure is about a queue or a topic: no message is wrong, and none has an
    /// attempt counted, though the service has replied.
    #[must_use]
    pub(crate) fn of_place(self) -> Self {
        match self.class {
            FailureClass::Unavailable => self,
            FailureClass::Permanent | FailureClass::Transient => {
                Self { class: FailureClass::Unavailable, kind: Kind::Refused, ..self }
            }
        }
    }

    /// Names the queue or topic.
    #[must_use]
    pub(crate) fn at(mut self, what: &str, name: &str) -> Self {
        self.text = format!("{what} `{name}`: {}", self.text);
        self
    }
}

fn said(who: &str, code: &str, message: &str) -> String {
    let message = one_line(message);
    let between = if message.is_empty() { "" } else { ": " };
    format!("{who} {}{between}{message}", one_line(code))
}

/// Gives what failed beneath, without the SDK's own words for it.
fn cause<E: Error + 'static>(error: &SdkError<E>) -> String {
    error.source().map_or_else(|| one_line(&error.to_string()), |cause| one_line(&full_text(cause)))
}

/// Takes from a code what names the error: SQS puts a prefix before some of them.
fn code_name(code: &str) -> &str {
    let code = code.rsplit_once('#').map_or(code, |(_, name)| name);
    code.strip_prefix("AWS.SimpleQueueService.").unwrap_or(code)
}

/// What error codes have in common.
struct Meaning {
    codes: &'static [&'static str],
    class: FailureClass,
    kind: Kind,
    /// What to do about it.
    advice: &'static str,
}

const fn unavailable(codes: &'static [&'static str], kind: Kind, advice: &'static str) -> Meaning {
    Meaning { codes, class: FailureClass::Unavailable, kind, advice }
}

/// How SNS begins to say that a request names a topic that is none of this region.
const WRONG_TOPIC: &str = "Invalid parameter: TopicArn";
/// What to do where the service throttles.
const SLOW_DOWN: &str = "the service asks to send less for now";

/// The codes that are known, without the prefix that SQS puts before some of them.
const MEANINGS: [Meaning; 10] = [
    unavailable(
        &["NonExistentQueue", "QueueDoesNotExist", "QueueDeletedRecently"],
        Kind::Missing,
        "create the queue, or declare it with `declare`",
    ),
    unavailable(
        &["NotFound", "NotFoundException", "ResourceNotFoundException"],
        Kind::Missing,
        "create the topic, or declare it with `declare`",
    ),
    unavailable(
        &[
            "AccessDenied",
            "AccessDeniedException",
            "AuthorizationError",
            "AuthorizationErrorException",
            "NotAuthorized",
        ],
        Kind::Refused,
        "allow the action to this user or role, and to the queue by its policy",
    ),
    unavailable(
        &["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"],
        Kind::Refused,
        "the session has ended: renew the token, or give a provider that renews it by `credentials`",
    ),
    unavailable(
        &[
            "InvalidClientTokenId",
            "InvalidAccessKeyId",
            "UnrecognizedClientException",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
            "AuthFailure",
            "OptInRequired",
        ],
        Kind::Refused,
        "name an access key of the account that is active",
    ),
    unavailable(
        &[
            "SignatureDoesNotMatch",
            "InvalidSignatureException",
            "InvalidSignature",
            "IncompleteSignature",
            "InvalidSecurity",
            "RequestExpired",
            "RequestTimeTooSkewed",
        ],
        Kind::Refused,
        "the secret is another key's or is shortened, or the clock of this machine is wrong",
    ),
    unavailable(
        &[
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "Throttled",
            "RequestThrottled",
            "RequestThrottledException",
            "RequestLimitExceeded",
            "TooManyRequestsException",
            "BandwidthLimitExceeded",
            "SlowDown",
            "PriorRequestNotComplete",
        ],
        Kind::Refused,
        SLOW_DOWN,
    ),
    unavailable(
        &["OverLimit", "QuotaExceeded", "LimitExceeded", "LimitExceededException"],
        Kind::Refused,
        "a quota of the account or the queue is used up",
    ),
    unavailable(
        &["QueueNameExists", "QueueAlreadyExists"],
        Kind::Other,
        "the queue exists with other settings and stays as it is: declare those, or delete it",
    ),
    Meaning {
        codes: &[
            "InvalidMessageContents",
            "BatchRequestTooLong",
            "InvalidParameterValue",
            "InvalidParameterValueException",
            "InvalidParameter",
            "InvalidParameterException",
            "ParameterValueInvalid",
            "ValidationError",
            "ValidationException",
            "InvalidAttributeValue",
            "MissingParameter",
            "MissingRequiredParameterException",
        ],
        class: FailureClass::Permanent,
        kind: Kind::Other,
        advice: "",
    },
];

/// Tells what an error code means, and what to do about it. Codes that are not known go by the
/// HTTP status, and else are transient.
fn meaning(code: &str, status: u16) -> (FailureClass, Kind, &'static str) {
    if let Some(known) = MEANINGS.iter().find(|known| known.codes.contains(&code)) {
        return (known.class, known.kind, known.advice);
    }
    if code.to_ascii_lowercase().starts_with("kms") {
        let advice = "mend the KMS key of the queue or topic, or the right to use it";
        return (FailureClass::Unavailable, Kind::Refused, advice);
    }
    match status {
        429 => (FailureClass::Unavailable, Kind::Refused, SLOW_DOWN),
        500.. => (FailureClass::Unavailable, Kind::Other, ""),
        _ => (FailureClass::Transient, Kind::Other, ""),
    }
}

impl From<Failure> for PublishError {
    fn from(failure: Failure) -> Self {
        let Failure { class, kind, text } = failure;
        match class {
            FailureClass::Permanent => Self::permanent(text),
            FailureClass::Transient => Self::transient(text),
            // A right, or a queue, may be missing for one name alone: the other keys are probed at
            // once.
            FailureClass::Unavailable if kind != Kind::Other => Self::unavailable(text).responded(),
            FailureClass::Unavailable => Self::unavailable(text),
        }
    }
}

impl From<Failure> for SubscribeError {
    fn from(failure: Failure) -> Self {
        Self(failure.text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass::{Permanent, Transient, Unavailable};

    #[test]
    fn each_error_of_the_service_has_its_class() {
        for (code, status, class, kind) in [
            ("AWS.SimpleQueueService.NonExistentQueue", 400, Unavailable, Kind::Missing),
            ("com.amazonaws.sqs#QueueDoesNotExist", 400, Unavailable, Kind::Missing),
            ("NotFound", 404, Unavailable, Kind::Missing),
            ("AccessDenied", 403, Unavailable, Kind::Refused),
            ("AuthorizationError", 403, Unavailable, Kind::Refused),
            ("ExpiredToken", 403, Unavailable, Kind::Refused),
            ("InvalidClientTokenId", 403, Unavailable, Kind::Refused),
            ("SignatureDoesNotMatch", 403, Unavailable, Kind::Refused),
            ("RequestExpired", 400, Unavailable, Kind::Refused),
            ("ThrottlingException", 400, Unavailable, Kind::Refused),
            ("RequestThrottled", 403, Unavailable, Kind::Refused),
            ("OverLimit", 403, Unavailable, Kind::Refused),
            ("KmsAccessDenied", 400, Unavailable, Kind::Refused),
            ("KMSThrottling", 400, Unavailable, Kind::Refused),
            ("QueueAlreadyExists", 400, Unavailable, Kind::Other),
            ("InvalidMessageContents", 400, Permanent, Kind::Other),
            ("AWS.SimpleQueueService.BatchRequestTooLong", 400, Permanent, Kind::Other),
            ("InvalidParameter", 400, Permanent, Kind::Other),
            ("InternalFailure", 500, Unavailable, Kind::Other),
            ("ServiceUnavailable", 503, Unavailable, Kind::Other),
            ("OfALaterYear", 429, Unavailable, Kind::Refused),
            ("OfALaterYear", 400, Transient, Kind::Other),
        ] {
            let failure = Failure::from_service(code, "said so", status);
            assert_eq!((failure.class, failure.kind), (class, kind), "{code}");
            assert!(failure.text.contains(code), "{failure:?}");
        }
    }

    #[test]
    fn a_failure_about_a_queue_or_a_topic_is_of_no_message() {
        for (failure, class, responded) in [
            (Failure::from_service("InvalidParameterValue", "retention", 400), Unavailable, true),
            (Failure::from_service("InvalidAttributeValue", "", 400), Unavailable, true),
            (Failure::from_service("OfALaterYear", "", 400), Unavailable, true),
            (Failure::from_service("AccessDenied", "", 403), Unavailable, true),
            (Failure::timed_out("did not reply", Duration::from_secs(1)), Unavailable, false),
        ] {
            let failure = failure.of_place();
            assert_eq!(failure.class, class, "{failure:?}");
            assert_eq!(PublishError::from(failure).has_responded(), responded);
        }
        let missing = Failure::from_service("NotFound", "", 404).of_place();
        assert_eq!(missing.kind, Kind::Missing, "it may be declared again");
        let topic = Failure::from_service(
            "InvalidParameter",
            "Invalid parameter: TopicArn Reason: An ARN must have at least 6 elements",
            400,
        );
        assert_eq!(topic.class, Unavailable);
        let message = "Invalid parameter: Message too long";
        assert_eq!(Failure::from_service("InvalidParameter", message, 400).class, Permanent);
    }

    #[test]
    fn an_entry_that_fails_by_the_senders_fault_is_refused_for_ever_and_any_other_for_now() {
        for (code, sender_fault, class) in [
            ("InvalidMessageContents", true, Permanent),
            ("InvalidParameterValue", true, Permanent),
            ("NewRefusal", true, Permanent),
            ("InternalError", false, Transient),
            ("InvalidParameterValue", false, Transient),
            // Whose fault it is said to be does not matter: it is not the message's.
            ("RequestThrottled", true, Unavailable),
            ("RequestThrottled", false, Unavailable),
            ("KmsAccessDenied", true, Unavailable),
            ("AccessDenied", true, Unavailable),
        ] {
            let failure = Failure::from_entry(code, "said so", sender_fault);
            assert_eq!(failure.class, class, "{code} {sender_fault}");
        }
    }

    #[test]
    fn a_failure_says_what_to_do_and_at_which_queue() {
        let missing = Failure::from_service(
            "AWS.SimpleQueueService.NonExistentQueue",
            "It is not there.",
            400,
        );
        assert_eq!(
            missing.at("queue", "orders").text,
            "queue `orders`: the service replied AWS.SimpleQueueService.NonExistentQueue: It is not \
             there.; create the queue, or declare it with `declare`"
        );
        let expired = Failure::from_service("ExpiredToken", "", 403);
        assert!(expired.text.contains("renew the token"), "{expired:?}");
    }

    #[test]
    fn a_refused_signature_does_not_quote_the_request() {
        let said = "The Canonical String should have been 'x-amz-security-token:canary'";
        let failure = Failure::from_service("SignatureDoesNotMatch", said, 403);
        assert!(!failure.text.contains("canary"), "{failure:?}");
    }

    #[test]
    fn a_refusal_is_a_response_and_a_lost_connection_is_none() {
        let responded = |failure: Failure| PublishError::from(failure).has_responded();
        assert!(responded(Failure::from_service("AccessDenied", "", 403)));
        assert!(responded(Failure::from_service("NotFound", "", 404)));
        assert!(!responded(Failure::timed_out("did not confirm", Duration::from_secs(1))));
        assert!(!responded(Failure::from_service("InternalFailure", "", 500)));
    }
}
