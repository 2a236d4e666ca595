//! What a destination takes, so that what it would refuse is refused at enqueue.

use crate::event::NewEvent;

/// What a destination takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest payload in bytes; `None` for no limit.
    pub max_payload: Option<usize>,
    /// Longest topic, key and type in bytes.
    pub max_text: Option<usize>,
    /// Longest value of a header in bytes.
    pub max_header: Option<usize>,
    /// What names of topics it takes; `None` for any.
    pub topics: Option<TopicRule>,
    /// Most messages in one `publish_batch`, from 1.
    pub max_batch: usize,
    /// Most batches in flight at once, from 1.
    pub max_in_flight: usize,
}

impl Default for Limits {
    /// No limit of size; batches of 256, four in flight.
    fn default() -> Self {
        Self { max_payload: None, max_text: None, max_header: None, topics: None, max_batch: 256, max_in_flight: 4 }
    }
}

/// What names of topics a destination takes.
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

/// An event that the destination would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// A part of it is too long.
    #[error("the event `{event_type}` has {actual} bytes of {what}; the route `{route}` takes at most {limit}")]
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
    /// Its topic is none of the destination's.
    #[error("the event `{event_type}` has the topic `{topic}`; on the route `{route}` a topic {rule}")]
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
}

impl Limits {
    /// Sets the longest payload in bytes.
    #[must_use]
    pub const fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = Some(bytes);
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

    /// Sets what names of topics it takes.
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
    /// # Errors
    /// [`LimitError`] naming the first thing that is too long or not taken.
    pub fn check(&self, route: &str, event: &NewEvent) -> Result<(), LimitError> {
        let fail = |what, actual, limit| {
            let (event_type, route) = (event.event_type.clone(), route.to_owned());
            Err(LimitError::TooLong { event_type, route, what, actual, limit })
        };
        if let Some(TopicRule { rule, .. }) = self.topics.filter(|topics| !(topics.holds)(&event.topic)) {
            let (event_type, route) = (event.event_type.clone(), route.to_owned());
            return Err(LimitError::Topic { event_type, route, topic: event.topic.clone(), rule });
        }
        if let Some(limit) = self.max_payload.filter(|&l| event.payload.len() > l) {
            return fail("payload", event.payload.len(), limit);
        }
        let texts = [("topic", event.topic.len()), ("type", event.event_type.len())];
        let key = event.key.as_ref().map(|key| ("key", key.len()));
        let texts = texts.into_iter().chain(key).map(|(what, len)| (what, len, self.max_text));
        let headers = event.headers.iter().map(|(_, value)| ("a header", value.len(), self.max_header));
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
        };
        assert_eq!(what(Limits::default()), None);
        assert_eq!(what(Limits::default().max_payload(4)), Some(("payload", 4)));
        assert_eq!(what(Limits::default().max_text(255)), None, "a header's value is no short text");
        assert_eq!(what(Limits::default().max_text(19)), Some(("key", 19)));
        assert_eq!(what(Limits::default().max_header(255)), Some(("a header", 255)));
        let rule = TopicRule::new("begins with an o", |topic| topic.starts_with('o'));
        assert_eq!(what(Limits::default().topics(rule)), None);
        let rule = TopicRule::new("begins with a p", |topic| topic.starts_with('p'));
        assert_eq!(what(Limits::default().topics(rule)), Some(("begins with a p", 0)));
    }
}
