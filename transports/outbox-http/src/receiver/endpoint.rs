//! One request, from its headers to its response.

use super::{
    bodies::{BodyError, PendingBodies},
    refusal::Refusal,
    reports::RefusalReports,
    webhook::Webhook,
};
use crate::{
    headers,
    signature::{self, Secret, seconds, verify, verify_attributes},
    subscriber::PendingRequest,
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
    transport::{
        AckDecision, AckHandle,
        cloudevents::{self, CloudEventError, Fallback, PlainJson},
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};
use tokio::{
    sync::{
        Semaphore,
        mpsc::{self, error::TrySendError},
        oneshot::error::RecvError,
    },
    time::timeout_at,
};

/// The reason of a refusal when all permits are taken.
pub(super) const BUSY: &str = "too many requests are under way";

/// What the receiver accepts and what it refuses.
#[derive(Debug)]
pub(super) struct AcceptRules {
    pub(super) secrets: Vec<Secret>,
    pub(super) tolerance: Duration,
    pub(super) topic: Option<String>,
    pub(super) plain_json: Option<PlainJson>,
    pub(super) webhook: Option<Webhook>,
    pub(super) structured_only: bool,
    pub(super) max_body: usize,
    pub(super) max_headers: usize,
    pub(super) max_header_bytes: usize,
    pub(super) respond_within: Duration,
    pub(super) retry_after: Duration,
}

/// The state that all requests of a receiver share.
pub(super) struct ReceiverState {
    pub(super) rules: AcceptRules,
    pub(super) bodies: PendingBodies,
    /// One for each request that is handled; a request gets it only after its signature is
    /// verified.
    pub(super) permits: Semaphore,
    /// To the subscriber.
    pub(super) sender: mpsc::Sender<PendingRequest>,
    pub(super) reports: RefusalReports,
}

/// Accepts one request and responds when its delivery has an ack decision.
pub(super) async fn receive(State(state): State<Arc<ReceiverState>>, request: Request) -> Response {
    let received_at = now();
    match state.handle(request, received_at, received_at + state.rules.respond_within).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => {
            state.reports.report(&refusal);
            refusal.into_response()
        }
    }
}

/// The signature headers of a request.
struct SignatureHeaders<'a> {
    id: &'a str,
    timestamp: &'a str,
    sent_at: u64,
    signatures: String,
    /// Empty where only the body is signed.
    attribute_signatures: String,
}

impl ReceiverState {
    async fn handle(
        &self,
        request: Request,
        received_at: Instant,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let (parts, body) = request.into_parts();
        let rules = &self.rules;
        rules.admit(&parts.headers)?;
        // The cheap checks first: the body of an unsigned or stale request is not read.
        let signed = if rules.secrets.is_empty() {
            None
        } else {
            Some(rules.signature_headers(&parts.headers)?)
        };
        let busy = || Refusal::retry_later(BUSY, rules.retry_after);
        if self.permits.available_permits() == 0 {
            return Err(busy());
        }
        let closed = || Refusal::retry_later("the receiver is closed", rules.retry_after);
        if self.sender.is_closed() {
            return Err(closed());
        }
        let body = self
            .bodies
            .read(body, rules.max_body, deadline)
            .await
            .map_err(|error| rules.body_refusal(&error))?;
        if let Some(signed) = &signed
            && !verify(&rules.secrets, signed.id, signed.timestamp, &body, &signed.signatures)
        {
            return Err(unauthorized("no signature fits"));
        }
        let message = rules.message(&parts, body, signed.as_ref())?;
        // The inbox identifies a message by the id that was signed; else a recorded request could
        // pass as a new message.
        if signed
            .is_some_and(|signed| cloudevents::identity(signed.id, &message.source) != message.id)
        {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "the signed id is not the id of the event",
            ));
        }
        let _permit = self.permits.try_acquire().map_err(|_| busy())?;
        let (ack, decision) =
            AckHandle::new("the sender no longer waits and will send the message again");
        let pending = PendingRequest { message, ack, received_at, deadline };
        self.sender.try_send(pending).map_err(|error| match error {
            TrySendError::Full(_) => busy(),
            TrySendError::Closed(_) => closed(),
        })?;
        rules.outcome(timeout_at(deadline.into(), decision).await.ok())
    }
}

impl AcceptRules {
    /// Gives what the sender is told for an ack decision; `None` where it did not come in time.
    fn outcome(&self, decision: Option<Result<AckDecision, RecvError>>) -> Result<(), Refusal> {
        match decision {
            Some(Ok(AckDecision::Ack)) => Ok(()),
            Some(Ok(AckDecision::Reject(reason))) => {
                Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, reason))
            }
            Some(Ok(AckDecision::Nack | AckDecision::Busy)) => {
                Err(Refusal::retry_later("the message could not be handled", self.retry_after))
            }
            Some(Err(_)) => Err(Refusal::retry_later(
                "the handler dropped the message without an ack decision",
                self.retry_after,
            )),
            None => {
                Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the handler did not answer in time"))
            }
        }
    }

    /// Checks size and number of the headers, and the length that they announce.
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

    /// Reads the signature headers and checks the timestamp.
    fn signature_headers<'a>(
        &self,
        headers: &'a HeaderMap,
    ) -> Result<SignatureHeaders<'a>, Refusal> {
        let one = |name: &str| {
            let mut values = headers.get_all(name).iter();
            match (values.next().and_then(|v| v.to_str().ok()), values.next()) {
                (Some(value), None) => Ok(value),
                _ => Err(unauthorized("the signature's headers are missing")),
            }
        };
        let (id, timestamp) = (one(signature::ID)?, one(signature::TIMESTAMP)?);
        // With a dot in the id, another split into id and timestamp would fit the same signature.
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
        let (signatures, attribute_signatures) =
            (all(signature::SIGNATURE), all(signature::ATTRIBUTES));
        if signatures.is_empty() {
            return Err(unauthorized("the signature's headers are missing"));
        }
        let sent_at =
            seconds(timestamp).ok_or_else(|| unauthorized("the timestamp cannot be read"))?;
        let now = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if now.abs_diff(sent_at) > self.tolerance.as_secs() {
            return Err(unauthorized("the timestamp is too far away"));
        }
        Ok(SignatureHeaders { id, timestamp, sent_at, signatures, attribute_signatures })
    }

    /// Makes the refusal of a request whose body could not be read.
    fn body_refusal(&self, error: &BodyError) -> Refusal {
        match error {
            BodyError::TooLarge => too_large(),
            BodyError::Broken => Refusal::new(StatusCode::BAD_REQUEST, "the body cannot be read"),
            BodyError::TimedOut => {
                Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")
            }
            BodyError::Evicted => {
                Refusal::retry_later("the body is slow, and others wait", self.retry_after)
            }
        }
    }

    /// Reads the message, in binary or structured mode.
    fn message(
        &self,
        parts: &Parts,
        body: Bytes,
        signed: Option<&SignatureHeaders<'_>>,
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
            if !signed.attribute_signatures.is_empty() || cloudevents::is_cloudevents(media) {
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

    /// Checks that the attributes in headers are signed too: else an attacker could change them in
    /// a recorded request.
    fn verify_attributes(
        &self,
        signed: &SignatureHeaders<'_>,
        body: &Bytes,
        attributes: &[(&str, String)],
    ) -> Result<(), Refusal> {
        let SignatureHeaders { id, timestamp, attribute_signatures, .. } = signed;
        if attribute_signatures.is_empty() {
            return Err(unauthorized(
                "the header outbox-signature is missing: attributes in headers have to be signed too, or a receiver says \
                 by `webhook` what signed bodies are",
            ));
        }
        if !verify_attributes(&self.secrets, id, timestamp, body, attributes, attribute_signatures)
        {
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
