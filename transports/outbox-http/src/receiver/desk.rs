//! What happens to one request, from its headers to its answer.

use super::{
    bodies::{Bodies, Unread},
    refusal::Refusal,
    reports::RefusalReports,
    webhook::Webhook,
};
use crate::{
    headers,
    signature::{self, Secret, seconds, verify, verify_attributes},
    subscriber::{Answer, Waiting},
};
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    request::Parts,
};
use outbox_core::{
    event::{Message, Timestamp},
    runtime::{now, wall_clock},
    transport::cloudevents::{self, CloudEventError, Fallback, PlainJson},
};
use std::{
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};
use tokio::{
    sync::{
        Semaphore,
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::timeout_at,
};

/// Why a request is refused when all places are taken.
pub(super) const BUSY: &str = "too many requests are under way";

/// What is taken and what is refused.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) secrets: Vec<Secret>,
    pub(super) tolerance: Duration,
    pub(super) topic: Option<String>,
    pub(super) plain_json: Option<PlainJson>,
    pub(super) webhook: Option<Webhook>,
    pub(super) structured_only: bool,
    pub(super) max_body: usize,
    pub(super) max_headers: usize,
    pub(super) max_header_bytes: usize,
    pub(super) answer_within: Duration,
    pub(super) retry_after: Duration,
}

/// Where requests come in: the rules, the places, and the way to the subscriber.
pub(super) struct Desk {
    pub(super) rules: Rules,
    pub(super) bodies: Bodies,
    /// Of requests that are handled: what a stranger sends never has one.
    pub(super) permits: Semaphore,
    pub(super) sender: mpsc::Sender<Waiting>,
    pub(super) reports: RefusalReports,
}

/// Takes one request and answers it when its delivery was answered.
pub(super) async fn receive(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let since = now();
    match desk.handle(request, since, since + desk.rules.answer_within).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => {
            desk.reports.report(&refusal);
            refusal.into_response()
        }
    }
}

/// What a signed request says of itself.
struct Signed<'a> {
    id: &'a str,
    timestamp: &'a str,
    sent_at: u64,
    signatures: String,
    /// Those of the attributes; empty where only the body is signed.
    of_attributes: String,
}

impl Desk {
    async fn handle(
        &self,
        request: Request,
        since: Instant,
        until: Instant,
    ) -> Result<(), Refusal> {
        let (parts, body) = request.into_parts();
        let rules = &self.rules;
        rules.admit(&parts.headers)?;
        // The cheap questions first: what is unsigned or stale is not read.
        let signed =
            if rules.secrets.is_empty() { None } else { Some(rules.signed(&parts.headers)?) };
        let busy = || Refusal::later(BUSY, rules.retry_after);
        if self.permits.available_permits() == 0 {
            return Err(busy());
        }
        let closed = || Refusal::later("the receiver is closed", rules.retry_after);
        if self.sender.is_closed() {
            return Err(closed());
        }
        let body = self
            .bodies
            .read(body, rules.max_body, until)
            .await
            .map_err(|unread| rules.unread(&unread))?;
        if let Some(signed) = &signed
            && !verify(&rules.secrets, signed.id, signed.timestamp, &body, &signed.signatures)
        {
            return Err(unauthorized("no signature fits"));
        }
        let message = rules.message(&parts, body, signed.as_ref())?;
        // What identifies the message for the inbox is what was signed, or a recorded request could come as a new one.
        if signed
            .is_some_and(|signed| cloudevents::identity(signed.id, &message.source) != message.id)
        {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "the signed id is not the id of the event",
            ));
        }
        let _permit = self.permits.try_acquire().map_err(|_| busy())?;
        let (answer, answered) = oneshot::channel();
        self.sender.try_send(Waiting { message, answer, since, until }).map_err(
            |error| match error {
                TrySendError::Full(_) => busy(),
                TrySendError::Closed(_) => closed(),
            },
        )?;
        match timeout_at(until.into(), answered).await {
            Ok(Ok(Answer::Ack)) => Ok(()),
            Ok(Ok(Answer::Reject(reason))) => {
                Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, reason))
            }
            Ok(Ok(Answer::Nack)) => {
                Err(Refusal::later("the message could not be handled", rules.retry_after))
            }
            Ok(Err(_)) => {
                Err(Refusal::later("the message was dropped without an answer", rules.retry_after))
            }
            Err(_) => {
                Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the handler did not answer in time"))
            }
        }
    }
}

impl Rules {
    /// Looks at size and form as the headers announce them.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if headers.len() > self.max_headers || headers::size(headers) > self.max_header_bytes {
            return Err(Refusal::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the headers are too large",
            ));
        }
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse::<u64>().ok());
        if length.is_some_and(|length| {
            usize::try_from(length).map_or(true, |length| length > self.max_body)
        }) {
            return Err(too_large());
        }
        Ok(())
    }

    /// Reads the headers of the signature and judges the timestamp.
    fn signed<'a>(&self, headers: &'a HeaderMap) -> Result<Signed<'a>, Refusal> {
        let one = |name: &str| {
            let mut values = headers.get_all(name).iter();
            match (values.next().and_then(|v| v.to_str().ok()), values.next()) {
                (Some(value), None) => Ok(value),
                _ => Err(unauthorized("the signature's headers are missing")),
            }
        };
        let (id, timestamp) = (one(signature::ID)?, one(signature::TIMESTAMP)?);
        // A dot would let an id and a timestamp be cut at another place under the same signature.
        if id.is_empty() || id.contains('.') {
            return Err(unauthorized("the signed id is empty or holds a dot"));
        }
        let all = |name| {
            headers
                .get_all(name)
                .iter()
                .filter_map(|v| v.to_str().ok())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let (signatures, of_attributes) = (all(signature::SIGNATURE), all(signature::ATTRIBUTES));
        if signatures.is_empty() {
            return Err(unauthorized("the signature's headers are missing"));
        }
        let sent_at =
            seconds(timestamp).ok_or_else(|| unauthorized("the timestamp cannot be read"))?;
        let now = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if now.abs_diff(sent_at) > self.tolerance.as_secs() {
            return Err(unauthorized("the timestamp is too far away"));
        }
        Ok(Signed { id, timestamp, sent_at, signatures, of_attributes })
    }

    /// Says what it means that a body is not there.
    fn unread(&self, unread: &Unread) -> Refusal {
        match unread {
            Unread::TooLarge => too_large(),
            Unread::Broken => Refusal::new(StatusCode::BAD_REQUEST, "the body cannot be read"),
            Unread::Late => {
                Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")
            }
            Unread::GivenUp => {
                Refusal::later("the body is slow, and others wait", self.retry_after)
            }
        }
    }

    /// Reads the message in the mode that it has.
    fn message(
        &self,
        parts: &Parts,
        body: Bytes,
        signed: Option<&Signed<'_>>,
    ) -> Result<Message, Refusal> {
        let headers = &parts.headers;
        if headers
            .get(CONTENT_ENCODING)
            .is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            return Err(unsupported("compressed bodies are not taken"));
        }
        let fallback =
            Fallback { topic: self.topic.as_deref(), received_at: Timestamp::from(wall_clock()) };
        let media = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let message = if let (Some(webhook), Some(signed)) = (&self.webhook, signed) {
            if !signed.of_attributes.is_empty() || cloudevents::is_cloudevents(media) {
                return Err(unsupported(
                    "only webhooks are taken here; an outbox sends to a receiver without `webhook`",
                ));
            }
            webhook.message(signed.id, signed.sent_at, body, &fallback)
        } else if cloudevents::is_cloudevents(media) {
            if !is_event_json(media) {
                return Err(unsupported(
                    "only application/cloudevents+json in UTF-8 is taken in structured mode",
                ));
            }
            cloudevents::from_json(&body, &fallback)
        } else if self.structured_only {
            return Err(unsupported("only structured mode is taken"));
        } else if let Some(signed) = signed {
            let attributes = headers::attributes(headers).map_err(unreadable)?;
            self.verify_attributes(signed, &body, &attributes)?;
            cloudevents::from_attributes(attributes, body, &fallback)
        } else {
            match self
                .plain_json
                .as_ref()
                .and_then(|plain| Some((plain, headers::named_by(plain, headers)?)))
            {
                Some((plain, named)) => plain.read(named, body, &fallback),
                None => headers::attributes(headers)
                    .and_then(|list| cloudevents::from_attributes(list, body, &fallback)),
            }
        };
        message.map_err(unreadable)
    }

    /// Takes attributes beside a body only where they are signed too: whoever records a request could change them.
    fn verify_attributes(
        &self,
        signed: &Signed<'_>,
        body: &Bytes,
        attributes: &[(&str, String)],
    ) -> Result<(), Refusal> {
        let Signed { id, timestamp, of_attributes, .. } = signed;
        if of_attributes.is_empty() {
            return Err(unauthorized(
                "the header outbox-signature is missing: attributes in headers have to be signed too, or a receiver says \
                 by `webhook` what signed bodies are",
            ));
        }
        if !verify_attributes(&self.secrets, id, timestamp, body, attributes, of_attributes) {
            return Err(unauthorized("no outbox-signature fits the attributes"));
        }
        Ok(())
    }
}

/// Tells whether a media type is the JSON format of one event, in UTF-8.
fn is_event_json(media: &str) -> bool {
    let mut parts = media.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let charset =
        parts.find_map(|p| p.to_ascii_lowercase().strip_prefix("charset=").map(str::to_owned));
    essence.eq_ignore_ascii_case(cloudevents::JSON_MEDIA_TYPE)
        && charset.is_none_or(|charset| charset.trim_matches('"') == "utf-8")
}

fn unreadable(error: CloudEventError) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
}

fn unauthorized(reason: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, reason)
}

fn unsupported(reason: &str) -> Refusal {
    Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason)
}

fn too_large() -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")
}
