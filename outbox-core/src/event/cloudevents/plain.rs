//! Messages that are no CloudEvents: plain JSON, with the attributes in headers.

use super::{CloudEventError, Fallback, SPEC_VERSION, from_attributes};
use crate::event::{Headers, Message};
use bytes::Bytes;
use serde::de::IgnoredAny;

/// How a transport that is configured so reads messages of plain JSON with a header for the type.
///
/// ```
/// # use outbox_core::{event::Timestamp, transport::cloudevents::{Fallback, PlainJson}};
/// let plain = PlainJson::new("x-event-type", "/legacy").key_header("x-order");
/// let fallback = Fallback { topic: Some("orders"), received_at: Timestamp::from_micros(0) };
/// let headers = [("X-Event-Type", "order.placed"), ("Message-Id", "17"), ("X-Order", "7"), ("tenant", "acme")];
/// let message = plain.read(headers, r#"{"total":3}"#.into(), &fallback)?;
/// assert_eq!((message.event_type.as_str(), message.key.as_deref()), ("order.placed", Some("7")));
/// assert_eq!(message.headers.get("tenant"), Some("acme"));
/// # Ok::<(), outbox_core::transport::cloudevents::CloudEventError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainJson {
    source: String,
    type_header: String,
    id_header: String,
    key_header: Option<String>,
    version_header: Option<String>,
}

impl PlainJson {
    /// Reads the type from a header, and names the service that the messages come from: a URI reference.
    ///
    /// The identity is read from the header `message-id`: without one, a consumer could not recognise duplicates.
    pub fn new(type_header: impl Into<String>, source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            type_header: type_header.into(),
            id_header: "message-id".into(),
            key_header: None,
            version_header: None,
        }
    }

    /// Reads the identity from another header.
    #[must_use]
    pub fn id_header(mut self, name: impl Into<String>) -> Self {
        self.id_header = name.into();
        self
    }

    /// Reads the ordering key from a header; without one, messages have no order.
    #[must_use]
    pub fn key_header(mut self, name: impl Into<String>) -> Self {
        self.key_header = Some(name.into());
        self
    }

    /// Reads the version of the payload's shape from a header; 1 where it is missing.
    #[must_use]
    pub fn version_header(mut self, name: impl Into<String>) -> Self {
        self.version_header = Some(name.into());
        self
    }

    /// Tells whether the headers name a type: whether this is such a message.
    #[must_use]
    pub fn is_meant<'h>(&self, headers: impl IntoIterator<Item = (&'h str, &'h str)>) -> bool {
        headers.into_iter().any(|(name, _)| name.eq_ignore_ascii_case(&self.type_header))
    }

    /// Lists the headers that are named here, for transports whose other headers are none of the message's.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let others = [self.key_header.as_deref(), self.version_header.as_deref()];
        [self.type_header.as_str(), self.id_header.as_str()]
            .into_iter()
            .chain(others.into_iter().flatten())
    }

    /// Makes a message of headers and the payload as received. Names are compared without case; other headers
    /// whose lower-case names are legal for an extension are kept.
    ///
    /// # Errors
    /// [`CloudEventError`] as of [`from_attributes`](super::from_attributes), and for a payload that is no JSON.
    pub fn read<'h>(
        &self,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
        payload: Bytes,
        fallback: &Fallback<'_>,
    ) -> Result<Message, CloudEventError> {
        serde_json::from_slice::<IgnoredAny>(&payload).map_err(|error| CloudEventError::Json {
            problem: "the payload is not JSON",
            line: error.line(),
            column: error.column(),
        })?;
        let named = [
            (Some(&self.type_header), "type"),
            (Some(&self.id_header), "id"),
            (self.key_header.as_ref(), "partitionkey"),
            (self.version_header.as_ref(), "eventversion"),
        ];
        let mut attributes = vec![
            ("specversion".to_owned(), SPEC_VERSION.to_owned()),
            ("source".to_owned(), self.source.clone()),
            ("datacontenttype".to_owned(), "application/json".to_owned()),
        ];
        for (name, value) in headers {
            let meant = named
                .iter()
                .find(|(header, _)| header.is_some_and(|h| name.eq_ignore_ascii_case(h)));
            let name = name.to_ascii_lowercase();
            match meant {
                Some((_, attribute)) => {
                    attributes.push(((*attribute).to_owned(), value.to_owned()))
                }
                None if Headers::new().insert(&name, value).is_ok() => {
                    attributes.push((name, value.to_owned()))
                }
                None => {}
            }
        }
        from_attributes(attributes, payload, fallback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;

    fn read(headers: &[(&str, &str)], payload: &'static str) -> Result<Message, CloudEventError> {
        let plain =
            PlainJson::new("x-type", "/legacy").key_header("x-key").version_header("x-version");
        let fallback = Fallback { topic: None, received_at: Timestamp::from_micros(7) };
        plain.read(headers.iter().copied(), payload.into(), &fallback)
    }

    #[test]
    fn headers_say_what_the_json_is() {
        let headers = [
            ("X-TYPE", "order.placed"),
            ("message-ID", "17"),
            ("x-key", "k"),
            ("X-Version", "3"),
            ("Tenant", "acme"),
            ("x-odd", "y"),
        ];
        let message = read(&headers, " {\"a\": 1} ").expect("it is whole");
        assert_eq!(
            (message.event_type.as_str(), message.event_version, message.key.as_deref()),
            ("order.placed", 3, Some("k"))
        );
        assert_eq!((message.source.as_str(), message.topic.as_str()), ("/legacy", "order.placed"));
        assert_eq!(
            (message.headers.get("tenant"), message.headers.get("originalid")),
            (Some("acme"), Some("17"))
        );
        assert_eq!((&*message.payload, message.created_at.as_micros()), (&b" {\"a\": 1} "[..], 7));
        let again = read(&headers, "{}").expect("it is whole");
        assert_eq!(message.id, again.id, "the identity is that of the header");
    }

    #[test]
    fn what_is_missing_doubled_or_no_json_is_told() {
        let (kind, id) = (("x-type", "a"), ("message-id", "1"));
        for (headers, payload, expected) in [
            (&[id][..], "{}", "`type` is missing"),
            (&[kind], "{}", "`id` is missing"),
            (&[kind, id, ("X-Type", "b")], "{}", "`type` is there twice"),
            (&[kind, id, ("x-version", "0")], "{}", "`eventversion`"),
            (&[kind, id], "{", "not JSON"),
            (&[kind, id], "", "not JSON"),
            (&[kind, id], "{} {}", "not JSON"),
        ] {
            let error = read(headers, payload).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let bomb = Bytes::from("[".repeat(100_000));
        let fallback = Fallback { topic: None, received_at: Timestamp::from_micros(7) };
        assert!(PlainJson::new("x-type", "/legacy").read([kind, id], bomb, &fallback).is_err());
    }

    #[test]
    fn a_message_is_meant_where_the_type_is_named() {
        let plain = PlainJson::new("x-type", "/legacy");
        assert!(plain.is_meant([("a", "b"), ("X-Type", "c")]));
        assert!(!plain.is_meant([("a", "x-type")]));
        let named = plain.key_header("x-key").id_header("x-id");
        assert_eq!(named.names().collect::<Vec<_>>(), ["x-type", "x-id", "x-key"]);
    }
}
