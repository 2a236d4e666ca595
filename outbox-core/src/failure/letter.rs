//! Dead letters: messages that were given up, kept with their whole history.

use super::{AttemptError, loggable_text};
use crate::{
    event::{EventId, Headers, LetterId, Message, MessageParts, SENSITIVE, Timestamp, cloudevents},
    runtime::{TIME_LIMIT, catch_unwind},
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize, Serializer, ser::Error};
use std::{fmt, str::FromStr, sync::Arc};

/// What stands for a payload that is not shown, in JSON.
const HIDDEN: &[u8] = b"\"(hidden)\"";

/// A listener for dead letters.
pub(crate) type DeadLetterListener =
    Box<dyn Fn(Arc<DeadLetter>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Calls a listener with a letter that was written; a panic of the listener is caught, and the caller waits for 5 min at
/// most.
pub(crate) async fn notify_dead_letter(listener: &DeadLetterListener, letter: &Arc<DeadLetter>) {
    match tokio::time::timeout(TIME_LIMIT, catch_unwind(listener(letter.clone()))).await {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => {
            tracing::error!(listener = "on_dead_letter", panic, "a listener panicked")
        }
        Err(_) => tracing::error!(
            listener = "on_dead_letter",
            letter = %letter.id,
            limit = ?TIME_LIMIT,
            "a listener did not end within its time limit, and was dropped"
        ),
    }
}

/// Logs a letter that was written; of a sensitive message without the text of its last error.
pub(crate) fn log_letter(letter: &DeadLetter) {
    let (message, last, received) =
        (letter.message.as_ref(), letter.errors.last(), letter.consumer_origin.as_ref());
    tracing::warn!(
        letter = %letter.id,
        event = (letter.event_id.0 > 0).then(|| tracing::field::display(letter.event_id)),
        message_id = message.map(|message| tracing::field::display(message.id)),
        topic = message.map(|message| message.topic.as_str()),
        event_type = message.map(|message| message.event_type.as_str()),
        key_hash = message.and_then(Message::key_hash),
        route = Some(letter.route.as_str()).filter(|route| !route.is_empty()),
        consumer = received.map(|by| by.consumer.as_str()),
        handler = received.map(|by| by.handler.as_str()).filter(|handler| !handler.is_empty()),
        reason = letter.reason.as_str(),
        attempts = letter.attempts,
        error = last.map(|error| loggable_text(&error.text, error.class, message)),
        key_waits = letter.parks,
        "an event is a dead letter: fix the cause, then redrive or discard it"
    );
}

/// Why an event became a dead letter.
///
/// ```
/// # use outbox_core::{admin::DeadLetterFilter, failure::DeadReason};
/// let crashed = DeadLetterFilter::all().reason(DeadReason::Crashed);
/// assert_eq!(DeadReason::Crashed.to_string(), "crashed");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// The destination rejected it for good.
    Rejected,
    /// The retry policy ran out.
    Exhausted,
    /// Its time to live had passed.
    Expired,
    /// No route takes it.
    Unroutable,
    /// It ended its process each time it was tried.
    Crashed,
    /// Its stored row does not decode.
    Undecodable,
    /// It failed and is not retried: on an at-most-once route or consumer, or because the database refuses to store it.
    NotRetried,
    /// No handler takes its type.
    UnknownType,
}

impl DeadReason {
    const ALL: [Self; 8] = [
        Self::Rejected,
        Self::Exhausted,
        Self::Expired,
        Self::Unroutable,
        Self::Crashed,
        Self::Undecodable,
        Self::NotRetried,
        Self::UnknownType,
    ];

    /// Gives the name that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::Expired => "expired",
            Self::Unroutable => "unroutable",
            Self::Crashed => "crashed",
            Self::Undecodable => "undecodable",
            Self::NotRetried => "not_retried",
            Self::UnknownType => "unknown_type",
        }
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DeadReason {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|r| r.as_str() == s).ok_or(())
    }
}

/// How an operator resolved a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resolution {
    /// `redriven`, `discarded` or `resent`.
    pub action: String,
    /// When.
    pub at: Timestamp,
    /// The operator, such as a login name.
    pub by: String,
    /// The operator's reason.
    pub reason: String,
}

/// The consumer that gave a message up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConsumerOrigin {
    /// Its stable name.
    pub consumer: String,
    /// The handler's stable name; empty where none took the message.
    pub handler: String,
}

/// An event that was given up, with its whole history.
///
/// ```
/// # use outbox_core::failure::DeadLetter;
/// # fn example(letter: &DeadLetter) {
/// let Some(message) = &letter.message else { return };
/// println!("{} ({}) failed {} times on {}", message.event_type, message.id, letter.attempts, letter.route);
/// for error in &letter.errors {
///     println!("  attempt {} at {}: {} ({})", error.attempt, error.at(), error.text, error.class);
/// }
/// # }
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Identity of the letter.
    pub id: LetterId,
    /// Place of the event in its outbox; zero where a received message had none.
    pub event_id: EventId,
    /// The event; `None` where its row or the received message does not decode. Serialised as a CloudEvent, with its content;
    /// what a payload codec has encoded stays so, as `data_base64`.
    #[serde(serialize_with = "as_cloud_event")]
    pub message: Option<Message>,
    /// The route that gave up; empty where no route takes it, and where a consumer gave up.
    pub route: String,
    /// The consumer that gave up; `None` where a route did.
    pub consumer_origin: Option<ConsumerOrigin>,
    /// Why it was given up.
    pub reason: DeadReason,
    /// Attempts that were counted.
    pub attempts: u32,
    /// The first failure and the last nine.
    pub errors: Vec<AttemptError>,
    /// Whether later events of its key wait until the letter is resolved.
    pub parks: bool,
    /// When it was given up.
    pub dead_at: Timestamp,
    /// How an operator resolved it; `None` for an open letter.
    pub resolution: Option<Resolution>,
    /// The letter that it came from, when it was redriven and failed again.
    pub previous: Option<LetterId>,
}

fn as_cloud_event<S: Serializer>(
    message: &Option<Message>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let event = message
        .as_ref()
        .map(cloudevents::to_shown_json)
        .map(|json| serde_json::from_slice::<serde_json::Value>(&json));
    event.transpose().map_err(S::Error::custom)?.serialize(serializer)
}

impl DeadLetter {
    /// Makes a letter; for stores.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "one argument a column; only stores call it")]
    pub fn new(
        id: LetterId,
        event_id: EventId,
        message: Option<Message>,
        route: String,
        reason: DeadReason,
        attempts: u32,
        errors: Vec<AttemptError>,
        parks: bool,
        dead_at: Timestamp,
        resolution: Option<Resolution>,
        previous: Option<LetterId>,
    ) -> Self {
        Self {
            id,
            event_id,
            message,
            route,
            consumer_origin: None,
            reason,
            attempts,
            errors,
            parks,
            dead_at,
            resolution,
            previous,
        }
    }

    /// Gives the letter as operators see it: where its message [is sensitive](Message::is_sensitive), without the
    /// payload, the other headers and the texts of the errors, which may quote the payload.
    ///
    /// ```
    /// # use outbox_core::failure::DeadLetter;
    /// # fn example(letter: DeadLetter) -> Result<(), serde_json::Error> {
    /// println!("{}", serde_json::to_string(&letter.for_operators())?);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn for_operators(self) -> Self {
        match &self.message {
            Some(message) if message.is_sensitive() => self.without_content(),
            _ => self,
        }
    }

    /// Gives the letter without payload, headers and texts of errors, which may quote the payload.
    #[must_use]
    pub fn without_content(mut self) -> Self {
        if let Some(message) = &mut self.message {
            let mut headers = Headers::default();
            if message.is_sensitive() {
                // As its type has it, so that the name and the value are legal.
                headers.insert(SENSITIVE, "true").unwrap_or_default();
            }
            let parts = message.clone().into_parts();
            *message = Message::new(MessageParts { payload: HIDDEN.into(), headers, ..parts });
        }
        for error in &mut self.errors {
            "(hidden)".clone_into(&mut error.text);
        }
        self
    }

    /// Sets the consumer that gave the message up.
    #[must_use]
    pub fn with_consumer_origin(mut self, origin: Option<ConsumerOrigin>) -> Self {
        self.consumer_origin = origin;
        self
    }
}

#[cfg(test)]
mod shown {
    use super::*;
    use crate::{
        event::{PAYLOAD_CODEC, PAYLOAD_KEY},
        testing::transport::full,
    };
    use base64::{Engine, engine::general_purpose::STANDARD};

    #[test]
    fn of_a_sensitive_message_operators_see_neither_payload_nor_headers_nor_errors() {
        let letter = |mark: Option<&str>| {
            let parts = full().into_parts();
            let mut headers = Headers::default();
            headers.insert("tenant", "canary").unwrap();
            if let Some(mark) = mark {
                headers.insert(SENSITIVE, mark).unwrap();
            }
            let message = Message::new(MessageParts { payload: "canary".into(), headers, ..parts });
            let class = super::super::FailureClass::Permanent;
            let errors = vec![AttemptError::new(1, class, "canary".to_owned())];
            let (id, at) = (LetterId(7), Timestamp::from_micros(0));
            let reason = DeadReason::NotRetried;
            let route = "billing".to_owned();
            DeadLetter::new(
                id,
                EventId(9),
                Some(message),
                route,
                reason,
                1,
                errors,
                true,
                at,
                None,
                None,
            )
        };
        let count = |letter: DeadLetter| format!("{letter:?}").matches("canary").count();
        let shown = |letter: &DeadLetter| serde_json::to_string(letter).unwrap();
        let sensitive = letter(Some("true")).for_operators();
        assert_eq!((count(sensitive.clone()), shown(&sensitive).contains("canary")), (0, false));
        assert!(sensitive.message.as_ref().is_some_and(Message::is_sensitive), "it stays so");
        assert!(shown(&sensitive).contains("(hidden)"));
        for mark in [None, Some("false")] {
            let open = letter(mark);
            let same = format!("{:?}", open.clone().for_operators());
            assert_eq!(same, format!("{open:?}"));
            assert!(!shown(&open.without_content()).contains("canary"), "a list of types hides it");
        }
    }

    #[test]
    fn an_encoded_content_is_bytes_in_json_whatever_it_looks_like() {
        for looks_like in [&b"true"[..], b"\xff\x00", b"plain"] {
            let mut parts = full().into_parts();
            parts.content_type = "text/plain".into();
            parts.payload = looks_like.to_vec().into();
            parts.headers.insert(PAYLOAD_CODEC, "aead").unwrap();
            parts.headers.insert(PAYLOAD_KEY, "k1").unwrap();
            let letter = DeadLetter::new(
                LetterId(7),
                EventId(9),
                Some(Message::new(parts)),
                "billing".into(),
                DeadReason::NotRetried,
                1,
                Vec::new(),
                true,
                Timestamp::from_micros(0),
                None,
                None,
            );
            let json = serde_json::to_value(&letter).unwrap();
            let message = &json["message"];
            assert_eq!(message["data_base64"], STANDARD.encode(looks_like));
            assert_eq!(
                (&message["payloadcodec"], &message["payloadkey"], message.get("data")),
                (&"aead".into(), &"k1".into(), None)
            );
        }
    }

    #[test]
    fn a_letter_is_shown_as_json_with_its_event_as_a_cloud_event() {
        let at = Timestamp::from_micros(0);
        let errors =
            vec![AttemptError::new(1, super::super::FailureClass::Permanent, "no".to_owned())];
        let letter = DeadLetter::new(
            LetterId(7),
            EventId(9),
            Some(full()),
            "billing".into(),
            DeadReason::NotRetried,
            1,
            errors,
            true,
            at,
            None,
            None,
        );
        let json = serde_json::to_value(&letter).unwrap();
        assert_eq!(
            (&json["id"], &json["reason"], &json["dead_at"]),
            (&7.into(), &"not_retried".into(), &"1970-01-01T00:00:00Z".into())
        );
        assert_eq!(
            (&json["message"]["specversion"], &json["errors"][0]["text"]),
            (&"1.0".into(), &"no".into())
        );
    }
}
