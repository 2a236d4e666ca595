//! The limits of a destination, so that an event that it would reject is rejected at enqueue.

use super::{cloudevents, nearest::nearest};
use crate::event::{EventId, Message, MessageParts, NewEvent, Timestamp};

/// The limits of a destination.
///
/// ```
/// # use outbox_core::transport::Limits;
/// let limits = Limits::default().max_payload(262_144).max_batch(10);
/// assert_eq!((limits.max_payload, limits.max_batch), (Some(262_144), 10));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest payload in bytes; `None` for no limit.
    pub max_payload: Option<usize>,
    /// Longest message in bytes, as it is encoded; `None` for no limit.
    pub max_message: Option<usize>,
    /// What counts towards `max_message`.
    pub encoding: Encoding,
    /// Longest topic, key and type in bytes.
    pub max_text: Option<usize>,
    /// Longest value of a header in bytes.
    pub max_header: Option<usize>,
    /// The rule for names of topics; `None` for any name.
    pub topics: Option<TopicRule>,
    /// Most messages in one `publish_batch`, from 1.
    pub max_batch: usize,
    /// Most batches in flight at once, from 1.
    pub max_in_flight: usize,
}

impl Default for Limits {
    /// No limit of size; batches of 256, four in flight.
    fn default() -> Self {
        Self {
            max_payload: None,
            max_message: None,
            encoding: Encoding::Body,
            max_text: None,
            max_header: None,
            topics: None,
            max_batch: 256,
            max_in_flight: 4,
        }
    }
}

/// How a destination encodes a message, so that it can be measured before it is saved.
///
/// Attributes that are not known by then (source, place and instants) count with their longest form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoding {
    /// Binary mode, where attributes have limits of their own: the payload alone, or the JSON object of structured mode
    /// where the payload is itself a CloudEvent.
    #[default]
    Body,
    /// The JSON object of structured mode, in which bytes that are no JSON take a third more.
    Structured,
    /// A record of binary mode: payload, key, and names and values of all attributes.
    Record,
    /// A record of structured mode: the JSON object and the key.
    StructuredRecord,
}

impl Encoding {
    /// Measures an event in bytes.
    #[must_use]
    pub fn size(self, event: &NewEvent) -> usize {
        let key = event.key.as_ref().map_or(0, String::len);
        match self {
            Self::Body if !cloudevents::is_cloudevents(&event.content_type) => event.payload.len(),
            Self::Body | Self::Structured => cloudevents::to_json(&longest(event)).len(),
            Self::StructuredRecord => key + cloudevents::to_json(&longest(event)).len(),
            Self::Record => {
                let message = longest(event);
                let attributes = cloudevents::attributes(&message);
                let attributes: usize =
                    attributes.iter().map(|(name, value)| PREFIX + name.len() + value.len()).sum();
                key + attributes + event.payload.len()
            }
        }
    }

    /// Gives a bound of [`size`](Self::size) without encoding anything.
    fn at_most(self, event: &NewEvent) -> usize {
        let payload = event.payload.len();
        let is_text = event.content_type.to_ascii_lowercase().starts_with("text/");
        let payload = match self {
            Self::Body if !cloudevents::is_cloudevents(&event.content_type) => return payload,
            Self::Record => payload,
            // A character of a text may be written as six.
            _ if is_text => payload.saturating_mul(6),
            _ => (payload / 3 + 1).saturating_mul(4),
        };
        let optional =
            [&event.key, &event.aggregate_type].map(|text| text.as_ref().map_or(0, String::len));
        let texts = event.topic.len() + event.event_type.len() + event.content_type.len();
        let headers: usize =
            event.headers.iter().map(|(name, value)| PREFIX + name.len() + value.len()).sum();
        // A key is written three times: as subject, as partition key, and as the key of a record.
        let texts = 6 * (texts + headers + 3 * optional.iter().sum::<usize>());
        payload.saturating_add(texts + ENVELOPE)
    }
}

/// Bytes of the prefix of an attribute's name, as Kafka's and HTTP's `ce_`, with what a record keeps of each.
const PREFIX: usize = 12;
/// Bytes of the attributes that are not known yet, and of the names of attributes, at their longest.
const ENVELOPE: usize = 2_048;

/// Makes the longest message that an event can become.
fn longest(event: &NewEvent) -> Message {
    let far = Timestamp::from_micros(FAR);
    Message::new(MessageParts {
        id: event.message_id,
        sequence: Some(EventId(i64::MAX)),
        source: "s".repeat(LONGEST_SOURCE),
        event_type: event.event_type.clone(),
        event_version: event.event_version,
        topic: event.topic.clone(),
        aggregate_type: event.aggregate_type.clone(),
        key: event.key.clone(),
        content_type: event.content_type.clone(),
        payload: event.payload.clone(),
        headers: event.headers.clone(),
        created_at: far,
        expires_at: event.ttl.map(|_| far),
        retry: None,
    })
}

/// Most bytes of a source.
const LONGEST_SOURCE: usize = 255;
/// An instant that is written with all its digits: in the year 2286.
const FAR: i64 = 9_999_999_999_999_999;

/// The rule of a destination for names of topics.
#[derive(Debug, Clone, Copy)]
pub struct TopicRule {
    rule: &'static str,
    holds: fn(&str) -> bool,
}

impl TopicRule {
    /// Makes a rule from its words, such as "must have 1 to 249 characters", and its check.
    #[must_use]
    pub const fn new(rule: &'static str, holds: fn(&str) -> bool) -> Self {
        Self { rule, holds }
    }
}

impl PartialEq for TopicRule {
    fn eq(&self, other: &Self) -> bool {
        self.rule == other.rule
    }
}

impl Eq for TopicRule {}

/// An event that the destination would reject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// A part of it is too long.
    #[error(
        "the event `{event_type}` has {actual} bytes of {what}; the route `{route}` takes at most {limit}"
    )]
    TooLong {
        /// Type name of the event.
        event_type: String,
        /// The route.
        route: String,
        /// What is too long.
        what: &'static str,
        /// How long it is.
        actual: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A part of it is longer than the outbox takes, whatever its routes are.
    #[error(
        "the event `{event_type}` has {actual} bytes of {what}; this outbox takes at most {limit}"
    )]
    TooLarge {
        /// Type name of the event.
        event_type: String,
        /// What is too long.
        what: &'static str,
        /// How long it is.
        actual: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Its topic is none of the destination's.
    #[error(
        "the event `{event_type}` has the topic `{topic}`; on the route `{route}` a topic {rule}"
    )]
    Topic {
        /// Type name of the event.
        event_type: String,
        /// The route.
        route: String,
        /// The topic.
        topic: String,
        /// What a topic has to be.
        rule: &'static str,
    },
    /// No route takes it, where all routes are known.
    #[error(
        "no route takes the event `{event_type}` with the topic `{topic}`{}; mend its topic, or add a route for it",
        .nearest.as_ref().map(|name| format!(" (there is one for `{name}`)")).unwrap_or_default()
    )]
    NoRoute {
        /// Type name of the event.
        event_type: String,
        /// The topic.
        topic: String,
        /// The topic of a route that is spelled nearly so.
        nearest: Option<String>,
    },
}

impl LimitError {
    /// Says that no route takes an event, where these are the topics that routes take.
    #[must_use]
    pub fn no_route<'a>(event: &NewEvent, topics: impl IntoIterator<Item = &'a str>) -> Self {
        let nearest = nearest(&event.topic, topics).map(str::to_owned);
        Self::NoRoute { event_type: event.event_type.clone(), topic: event.topic.clone(), nearest }
    }
}

impl Limits {
    /// Sets the longest payload in bytes.
    #[must_use]
    pub const fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = Some(bytes);
        self
    }

    /// Sets the longest message in bytes, as it is [encoded](Encoding).
    #[must_use]
    pub const fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = Some(bytes);
        self
    }

    /// Sets what counts towards the longest message. Publishers set it by themselves.
    #[must_use]
    pub const fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Sets the longest topic, key and type in bytes.
    #[must_use]
    pub const fn max_text(mut self, bytes: usize) -> Self {
        self.max_text = Some(bytes);
        self
    }

    /// Sets the longest value of a header in bytes.
    #[must_use]
    pub const fn max_header(mut self, bytes: usize) -> Self {
        self.max_header = Some(bytes);
        self
    }

    /// Sets the rule for names of topics.
    #[must_use]
    pub const fn topics(mut self, rule: TopicRule) -> Self {
        self.topics = Some(rule);
        self
    }

    /// Sets the most messages in one batch; zero counts as one.
    #[must_use]
    pub const fn max_batch(mut self, messages: usize) -> Self {
        self.max_batch = if messages == 0 { 1 } else { messages };
        self
    }

    /// Sets the most batches in flight; zero counts as one.
    #[must_use]
    pub const fn max_in_flight(mut self, batches: usize) -> Self {
        self.max_in_flight = if batches == 0 { 1 } else { batches };
        self
    }

    /// Checks an event that would go to the route.
    ///
    /// ```
    /// # use outbox_core::{event::NewEvent, transport::{LimitError, Limits}};
    /// # struct OrderPlaced { order_id: i64 }
    /// # impl outbox_core::event::OutboxEvent for OrderPlaced {
    /// #     fn meta(&self) -> outbox_core::event::EventMeta<'_> {
    /// #         outbox_core::event::EventMeta::new("order.placed").topic("orders").key(Some(self.order_id.to_string()))
    /// #     }
    /// #     fn payload(&self) -> Result<bytes::Bytes, outbox_core::event::EncodeError> {
    /// #         Ok(format!(r#"{{"order_id":{}}}"#, self.order_id).into())
    /// #     }
    /// # }
    /// let event = NewEvent::encode(&OrderPlaced { order_id: 7 })?;
    /// let too_long = Limits::default().max_payload(4).check("billing", &event);
    /// assert!(matches!(too_long, Err(LimitError::TooLong { what: "payload", limit: 4, .. })));
    /// # Ok::<(), outbox_core::event::EncodeError>(())
    /// ```
    ///
    /// # Errors
    /// [`LimitError`] naming the first thing that is too long or not taken.
    pub fn check(&self, route: &str, event: &NewEvent) -> Result<(), LimitError> {
        let fail = |what, actual, limit| {
            let (event_type, route) = (event.event_type.clone(), route.to_owned());
            Err(LimitError::TooLong { event_type, route, what, actual, limit })
        };
        if let Some(TopicRule { rule, .. }) =
            self.topics.filter(|topics| !(topics.holds)(&event.topic))
        {
            let (event_type, route) = (event.event_type.clone(), route.to_owned());
            return Err(LimitError::Topic { event_type, route, topic: event.topic.clone(), rule });
        }
        if let Some(limit) = self.max_payload.filter(|&l| event.payload.len() > l) {
            return fail("payload", event.payload.len(), limit);
        }
        // Mostly the bound alone tells that it fits, and nothing is encoded.
        if let Some(limit) = self.max_message.filter(|&l| self.encoding.at_most(event) > l) {
            let size = self.encoding.size(event);
            if size > limit {
                return fail("encoded message", size, limit);
            }
        }
        let texts = [("topic", event.topic.len()), ("type", event.event_type.len())];
        let key = event.key.as_ref().map(|key| ("key", key.len()));
        let texts = texts.into_iter().chain(key).map(|(what, len)| (what, len, self.max_text));
        let headers =
            event.headers.iter().map(|(_, value)| ("a header", value.len(), self.max_header));
        for (what, len, limit) in texts.chain(headers) {
            if let Some(limit) = limit.filter(|limit| len > *limit) {
                return fail(what, len, limit);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Headers, MessageId};

    #[test]
    fn each_limit_names_what_is_too_long_and_leaves_the_rest_alone() {
        let mut headers = Headers::new();
        headers.insert("note", "x".repeat(300)).expect("legal");
        let event = NewEvent {
            message_id: MessageId::generate(),
            event_type: "order.placed".into(),
            event_version: 1,
            topic: "orders".into(),
            aggregate_type: None,
            key: Some("k".repeat(20)),
            content_type: "application/json".into(),
            payload: bytes::Bytes::from_static(b"12345"),
            headers,
            ttl: None,
            retry: None,
        };
        let what = |limits: Limits| match limits.check("r", &event) {
            Ok(()) => None,
            Err(LimitError::TooLong { what, limit, .. }) => Some((what, limit)),
            Err(LimitError::Topic { rule, .. }) => Some((rule, 0)),
            Err(error @ (LimitError::TooLarge { .. } | LimitError::NoRoute { .. })) => {
                panic!("{error}")
            }
        };
        assert_eq!(what(Limits::default()), None);
        assert_eq!(what(Limits::default().max_payload(4)), Some(("payload", 4)));
        assert_eq!(
            what(Limits::default().max_text(255)),
            None,
            "a header's value is no short text"
        );
        assert_eq!(what(Limits::default().max_text(19)), Some(("key", 19)));
        assert_eq!(what(Limits::default().max_header(255)), Some(("a header", 255)));
        let rule = TopicRule::new("begins with an o", |topic| topic.starts_with('o'));
        assert_eq!(what(Limits::default().topics(rule)), None);
        let rule = TopicRule::new("begins with a p", |topic| topic.starts_with('p'));
        assert_eq!(what(Limits::default().topics(rule)), Some(("begins with a p", 0)));
    }
    /// One byte more than each encoding takes is refused, and what it takes is not.
    #[test]
    fn a_message_is_measured_as_it_is_encoded() {
        let event = |content_type: &str, payload: &[u8]| NewEvent {
            message_id: MessageId::generate(),
            event_type: "order.placed".into(),
            event_version: 1,
            topic: "orders".into(),
            aggregate_type: Some("order".into()),
            key: Some("\u{1f980}\"key".into()),
            content_type: content_type.into(),
            payload: bytes::Bytes::copy_from_slice(payload),
            headers: Headers::new(),
            ttl: Some(std::time::Duration::from_secs(1)),
            retry: None,
        };
        let (zeros, quotes) = (vec![0_u8; 3_000], "\"".repeat(3_000));
        let json = format!("\"{}\"", "x".repeat(2_998));
        for (content_type, payload, in_json) in [
            ("application/json", json.as_bytes(), 3_000),
            ("application/json", b" {}", 4),
            ("application/octet-stream", zeros.as_slice(), 4_000),
            ("text/plain", quotes.as_bytes(), 6_000),
        ] {
            let event = event(content_type, payload);
            for (encoding, payload_alone) in [
                (Encoding::Body, payload.len()),
                (Encoding::Record, payload.len()),
                (Encoding::Structured, in_json),
                (Encoding::StructuredRecord, in_json),
            ] {
                let size = encoding.size(&event);
                let envelope = size - payload_alone;
                assert_eq!(
                    envelope > 0,
                    encoding != Encoding::Body,
                    "{encoding:?} of {content_type}"
                );
                assert!(envelope < ENVELOPE, "{encoding:?} of {content_type}: {envelope}");
                assert!(size <= encoding.at_most(&event), "{encoding:?} of {content_type}: {size}");
                let limits = Limits::default().encoding(encoding);
                assert_eq!(limits.max_message(size).check("r", &event), Ok(()));
                match limits.max_message(size - 1).check("r", &event) {
                    Err(LimitError::TooLong { what: "encoded message", actual, .. }) => {
                        assert_eq!(actual, size)
                    }
                    other => panic!("{encoding:?} of {content_type}: {other:?}"),
                }
            }
        }
        // A payload that is itself a CloudEvent travels in structured mode.
        let inner = event("application/cloudevents+json", b"{}");
        assert_eq!(Encoding::Body.size(&inner), Encoding::Structured.size(&inner));
    }
}
