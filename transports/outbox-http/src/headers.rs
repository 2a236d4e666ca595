//! Binary mode: attributes as `ce-` headers, percent-encoded, and the payload as body.
//!
//! # Source
//! CloudEvents 1.0.2, HTTP protocol binding, section 3.1.3.

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use outbox_core::{
    event::Message,
    transport::cloudevents::{self, CloudEventError, PlainJson},
};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};
use std::borrow::Cow;

/// What the names of attributes begin with.
pub(crate) const PREFIX: &str = "ce-";
/// The attribute that HTTP carries in its own `Content-Type` header.
pub(crate) const MEDIA_TYPE: &str = "datacontenttype";
/// Characters that the binding percent-encodes besides control characters and non-ASCII ones.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Headers of a request in binary mode: hyper's servers read 100, and the client and proxies add
/// theirs.
const MAX_COUNT: usize = 80;
/// Bytes of headers in binary mode: common servers read 16 KiB, the client and proxies add theirs.
const MAX_BYTES: usize = 12 * 1024;

/// Encodes an attribute's value.
pub(crate) fn encode(value: &str) -> Cow<'_, str> {
    utf8_percent_encode(value, ENCODED).into()
}

/// Decodes an attribute's value: first a quoted string, then one round of percent-decoding; `None`
/// where that is no UTF-8.
pub(crate) fn decode(value: &[u8]) -> Option<String> {
    let unquoted = match value {
        [b'"', inner @ .., b'"'] => unescape(inner).map(Cow::Owned).unwrap_or(Cow::Borrowed(value)),
        _ => Cow::Borrowed(value),
    };
    percent_decode(&unquoted).decode_utf8().ok().map(Cow::into_owned)
}

/// Takes the backslashes out of a quoted string's inside; `None` where it is not one.
fn unescape(inner: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => out.push(*bytes.next()?),
            b'"' => return None,
            _ => out.push(byte),
        }
    }
    Some(out)
}

/// Writes a message's attributes as headers; `Err` names the attribute that no header can carry.
pub(crate) fn write(message: &Message) -> Result<HeaderMap, String> {
    let list = cloudevents::attributes(message);
    let mut headers = HeaderMap::with_capacity(list.len() + 8);
    for (name, value) in list {
        let (header, value) = if name == MEDIA_TYPE {
            // Servers trim white space around a value, and the value read has to be the value
            // signed.
            (Ok(CONTENT_TYPE), HeaderValue::from_str(value.trim()))
        } else {
            (
                HeaderName::try_from(format!("{PREFIX}{name}")),
                HeaderValue::from_str(&encode(&value)),
            )
        };
        let (Ok(header), Ok(value)) = (header, value) else {
            return Err(name.to_owned());
        };
        headers.insert(header, value);
    }
    Ok(headers)
}

/// Tells whether common servers accept so many headers.
pub(crate) fn fit(headers: &HeaderMap) -> bool {
    headers.len() <= MAX_COUNT && size(headers) <= MAX_BYTES
}

/// Gives the bytes of all names and values.
pub(crate) fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Lists the attributes of a request in binary mode, in the order of its headers.
pub(crate) fn attributes(headers: &HeaderMap) -> Result<Vec<(&str, String)>, CloudEventError> {
    let mut attributes = Vec::with_capacity(headers.len());
    for (header, value) in headers {
        let (name, value) = match header.as_str().strip_prefix(PREFIX) {
            Some(name) => (name, decode(value.as_bytes())),
            None if header == CONTENT_TYPE => (MEDIA_TYPE, value.to_str().ok().map(str::to_owned)),
            None => continue,
        };
        let value = value.ok_or_else(|| CloudEventError::Invalid {
            attribute: name.chars().take(64).collect(),
            rule: "is not encoded as the HTTP binding says",
        })?;
        attributes.push((name, value));
    }
    Ok(attributes)
}

/// Gives the headers that `plain` names, for a request that is plain JSON and no CloudEvent; `None`
/// for any other request.
pub(crate) fn named_by<'h>(
    plain: &PlainJson,
    headers: &'h HeaderMap,
) -> Option<Vec<(&'h str, &'h str)>> {
    if headers.keys().any(|header| header.as_str().starts_with(PREFIX)) {
        return None;
    }
    let is_named =
        |header: &HeaderName| plain.names().any(|name| header.as_str().eq_ignore_ascii_case(name));
    let named = headers.iter().filter(|(header, _)| is_named(header));
    let named: Vec<_> =
        named.filter_map(|(header, value)| Some((header.as_str(), value.to_str().ok()?))).collect();
    plain.is_meant(named.iter().copied()).then_some(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use outbox_core::{
        event::Timestamp,
        testing::transport::attributes_with_control_characters_are_refused as refused,
        transport::cloudevents::Fallback,
    };
    use proptest::{collection::vec, prelude::*};

    fn read(headers: &HeaderMap) -> Result<Message, CloudEventError> {
        let fallback = Fallback { topic: None, received_at: Timestamp::from_micros(0) };
        cloudevents::from_attributes(attributes(headers)?, Bytes::new(), &fallback)
    }

    #[test]
    fn the_bindings_own_example_is_encoded_as_it_says() {
        assert_eq!(encode("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(
            encode("!\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~"),
            "!%22#$%25&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~"
        );
    }

    #[test]
    fn attributes_with_control_characters_are_refused() {
        refused(|list| {
            let mut headers = HeaderMap::new();
            for (name, value) in list {
                let named = if *name == MEDIA_TYPE {
                    CONTENT_TYPE.as_str().to_owned()
                } else {
                    [PREFIX, name].concat()
                };
                let name = HeaderName::try_from(named).map_err(|error| error.to_string())?;
                let value = if name == CONTENT_TYPE {
                    (*value).to_owned()
                } else {
                    encode(value).into_owned()
                };
                // A request cannot hold what no header can carry.
                headers
                    .insert(name, HeaderValue::try_from(value).map_err(|error| error.to_string())?);
            }
            read(&headers).map_err(|error| error.to_string())
        });
    }

    proptest! {
        #[test]
        fn every_text_reads_back_and_is_plain_ascii_on_the_wire(text in any::<String>()) {
            let encoded = encode(&text);
            prop_assert!(encoded.bytes().all(|b| (0x21..0x7f).contains(&b)), "{}", encoded);
            prop_assert_eq!(decode(encoded.as_bytes()), Some(text));
        }

        #[test]
        fn any_header_value_is_a_text_or_refused(bytes in vec(any::<u8>(), 0..60)) {
            if let Some(text) = decode(&bytes) {
                prop_assert!(text.len() <= bytes.len());
            }
        }

        #[test]
        fn any_headers_are_an_event_or_a_clear_error(
            list in vec(("(ce-(id|type|source|specversion|time|data|[a-z]{1,9})|content-type|[a-z-]{1,12})", vec(0x20u8..=0xff, 0..30)), 0..12),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in list {
                if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value)) {
                    headers.append(name, value);
                }
            }
            if let Err(error) = read(&headers) {
                let text = error.to_string();
                prop_assert!(text.contains("attribute") && text.len() < 300, "{}", text);
            }
        }
    }
}
