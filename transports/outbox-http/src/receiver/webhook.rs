//! Webhooks of a sender that is no outbox: a signed body, whose type and source the configuration
//! gives.

use crate::headers::MEDIA_TYPE;
use bytes::Bytes;
use outbox_core::{
    event::{Message, TextRule, Timestamp},
    transport::cloudevents::{self, CloudEventError, Fallback, SPEC_VERSION},
};

/// Type and source of a sender's events. The receiver reads no header of its requests except those
/// that Standard Webhooks signs.
#[derive(Debug)]
pub(super) struct Webhook {
    pub(super) event_type: String,
    pub(super) source: String,
}

impl Webhook {
    /// Tells whether type or source is not legal for an event.
    pub(super) fn is_invalid(&self) -> bool {
        let rule = TextRule::ATTRIBUTE;
        !rule.allows(&self.event_type) || !rule.allows(&self.source)
    }

    /// Builds the message; `sent_at` in seconds since 1970.
    pub(super) fn message(
        &self,
        id: &str,
        sent_at: u64,
        body: Bytes,
        fallback: &Fallback<'_>,
    ) -> Result<Message, CloudEventError> {
        let attributes = [
            ("specversion", SPEC_VERSION),
            ("id", id),
            ("source", &self.source),
            ("type", &self.event_type),
            (MEDIA_TYPE, "application/json"),
        ];
        let micros = i64::try_from(sent_at).ok().and_then(|seconds| seconds.checked_mul(1_000_000));
        let received_at = micros.map_or(fallback.received_at, Timestamp::from_micros);
        cloudevents::from_attributes(attributes, body, &Fallback { received_at, ..*fallback })
    }
}
