//! What happens to one request, from its headers to its answer.

use super::refusal::Refusal;
use crate::{
    headers,
    signature::{self, Secret, seconds, verify},
    subscriber::{Answer, Waiting},
};
use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    request::Parts,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use outbox_core::{
    event::{Message, Timestamp},
    runtime::{now, wall_clock},
    transport::cloudevents::{self, Fallback, PlainJson},
};
use std::{
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout_at,
};

/// What is taken and what is refused.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) secrets: Vec<Secret>,
    pub(super) tolerance: Duration,
    pub(super) topic: Option<String>,
    pub(super) plain_json: Option<PlainJson>,
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
    pub(super) permits: Semaphore,
    pub(super) sender: mpsc::Sender<Waiting>,
}

/// Takes one request and answers it when its delivery was answered.
pub(super) async fn receive(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let until = now() + desk.rules.answer_within;
    match desk.handle(request, until).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => {
            tracing::debug!(status = refusal.status.as_u16(), "a request was not confirmed");
            refusal.into_response()
        }
    }
}

/// What a signed request says of itself.
struct Signed<'a> {
    id: &'a str,
    timestamp: &'a str,
    signatures: String,
}

impl Desk {
    async fn handle(&self, request: Request, until: Instant) -> Result<(), Refusal> {
        let (parts, body) = request.into_parts();
        let rules = &self.rules;
        rules.admit(&parts.headers)?;
        // The cheap questions first: what is unsigned or stale is not read.
        let signed = if rules.secrets.is_empty() { None } else { Some(rules.signed(&parts.headers)?) };
        let busy = || Refusal::later("too many requests are under way", rules.retry_after);
        let _permit = self.permits.try_acquire().map_err(|_| busy())?;
        let closed = || Refusal::later("the receiver is closed", rules.retry_after);
        if self.sender.is_closed() {
            return Err(closed());
        }
        let body = rules.read(body, until).await?;
        if let Some(signed) = &signed
            && !verify(&rules.secrets, signed.id, signed.timestamp, &body, &signed.signatures)
        {
            return Err(unauthorized("no signature fits"));
        }
        let message = rules.message(&parts, body)?;
        // What identifies the message for the inbox is what was signed, or a recorded request could come as a new one.
        if signed.is_some_and(|signed| cloudevents::identity(signed.id, &message.source) != message.id) {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "the signed id is not the id of the event"));
        }
        let (answer, answered) = oneshot::channel();
        self.sender.try_send(Waiting { message, answer }).map_err(|_| closed())?;
        match timeout_at(until.into(), answered).await {
            Ok(Ok(Answer::Ack)) => Ok(()),
            Ok(Ok(Answer::Reject(reason))) => Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, reason)),
            Ok(Ok(Answer::Nack)) => Err(Refusal::later("the message could not be handled", rules.retry_after)),
            Ok(Err(_)) => Err(Refusal::later("the message was dropped without an answer", rules.retry_after)),
            Err(_) => Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the handler did not answer in time")),
        }
    }
}

impl Rules {
    /// Looks at size and form as the headers announce them.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if headers.len() > self.max_headers || headers::size(headers) > self.max_header_bytes {
            return Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large"));
        }
        let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
        if length.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > self.max_body)) {
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
        let all = headers.get_all(signature::SIGNATURE).iter().filter_map(|v| v.to_str().ok());
        let signatures = all.collect::<Vec<_>>().join(" ");
        if signatures.is_empty() {
            return Err(unauthorized("the signature's headers are missing"));
        }
        let sent = seconds(timestamp).ok_or_else(|| unauthorized("the timestamp cannot be read"))?;
        let now = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if now.abs_diff(sent) > self.tolerance.as_secs() {
            return Err(unauthorized("the timestamp is too far away"));
        }
        Ok(Signed { id, timestamp, signatures })
    }

    /// Reads the body up to its bound and until the deadline.
    async fn read(&self, body: Body, until: Instant) -> Result<Bytes, Refusal> {
        match timeout_at(until.into(), Limited::new(body, self.max_body).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(Refusal::new(StatusCode::BAD_REQUEST, "the body cannot be read")),
            Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
        }
    }

    /// Reads the message in the mode that it has.
    fn message(&self, parts: &Parts, body: Bytes) -> Result<Message, Refusal> {
        let headers = &parts.headers;
        if headers.get(CONTENT_ENCODING).is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(unsupported("compressed bodies are not taken"));
        }
        let fallback = Fallback { topic: self.topic.as_deref(), received_at: Timestamp::from(wall_clock()) };
        let media = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let message = if cloudevents::is_cloudevents(media) {
            if !is_event_json(media) {
                return Err(unsupported("only application/cloudevents+json in UTF-8 is taken in structured mode"));
            }
            cloudevents::from_json(&body, &fallback)
        } else if self.structured_only {
            return Err(unsupported("only structured mode is taken"));
        } else {
            match self.plain_json.as_ref().and_then(|plain| Some((plain, headers::named_by(plain, headers)?))) {
                Some((plain, named)) => plain.read(named, body, &fallback),
                None => headers::read(headers, body, &fallback),
            }
        };
        message.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))
    }
}

/// Tells whether a media type is the JSON format of one event, in UTF-8.
fn is_event_json(media: &str) -> bool {
    let mut parts = media.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let charset = parts.find_map(|p| p.to_ascii_lowercase().strip_prefix("charset=").map(str::to_owned));
    essence.eq_ignore_ascii_case(cloudevents::JSON_MEDIA_TYPE)
        && charset.is_none_or(|charset| charset.trim_matches('"') == "utf-8")
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
