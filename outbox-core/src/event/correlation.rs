//! Correlation and causation ids, which pass from message to message.

use super::{Headers, Message, MessageId, TextRule};
use std::{borrow::Cow, sync::Arc};

const CORRELATION: &str = "correlationid";
const CAUSATION: &str = "causationid";

/// Correlation and causation of the events of a transaction. The events carry them in the headers `correlationid`, the
/// same for all messages that follow from one first message or request, and `causationid`, the id of the handled
/// message; headers that an event sets itself stay.
///
/// A consumer sets it for its handlers, a coordinator for the steps of its sagas.
///
/// ```
/// # use outbox_core::event::{Headers, CorrelationContext};
/// let mut headers = Headers::new();
/// CorrelationContext::new("request-7")?.apply_to(&mut headers);
/// assert_eq!(headers.get("correlationid"), Some("request-7"));
/// # Ok::<(), outbox_core::event::CorrelationError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorrelationContext {
    /// `None` where the handled message has no correlation id: then its own id is used.
    correlation: Option<Arc<str>>,
    causation: Option<MessageId>,
}

/// A text that is not a correlation id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a correlation id has {}", TextRule::ATTRIBUTE)]
pub struct CorrelationError;

impl CorrelationContext {
    /// Makes a context with a correlation id of 1 to 255 bytes.
    ///
    /// # Errors
    /// [`CorrelationError`] when it is empty, longer, or has a control character.
    pub fn new(correlation: impl Into<Arc<str>>) -> Result<Self, CorrelationError> {
        let correlation = correlation.into();
        // Those of sagas, and of all usual requests, are shorter.
        if !TextRule::ATTRIBUTE.allows(&correlation) {
            return Err(CorrelationError);
        }
        Ok(Self { correlation: Some(correlation), causation: None })
    }

    /// Makes the context of a received message: with its correlation id, or, where it has none, with its own id.
    ///
    /// ```
    /// # use outbox_core::event::{CorrelationContext, Message};
    /// # struct OrderPlaced { order_id: i64 }
    /// # impl outbox_core::event::OutboxEvent for OrderPlaced {
    /// #     fn meta(&self) -> outbox_core::event::EventMeta<'_> {
    /// #         outbox_core::event::EventMeta::new("order.placed").topic("orders").key(Some(self.order_id.to_string()))
    /// #     }
    /// #     fn payload(&self) -> Result<bytes::Bytes, outbox_core::event::EncodeError> {
    /// #         Ok(format!(r#"{{"order_id":{}}}"#, self.order_id).into())
    /// #     }
    /// # }
    /// let message = Message::for_test(&OrderPlaced { order_id: 7 })?;
    /// let context = CorrelationContext::of(&message);
    /// assert_eq!(context.correlation(), message.id.to_string(), "the first of its chain");
    /// assert_eq!(context.causation(), Some(message.id));
    /// # Ok::<(), outbox_core::event::EncodeError>(())
    /// ```
    #[must_use]
    pub fn of(message: &Message) -> Self {
        let carried = message.headers.get(CORRELATION);
        // An id that a header could not carry is dropped.
        let carried = carried.filter(|id| !id.is_empty() && !id.chars().any(char::is_control));
        Self { correlation: carried.map(Into::into), causation: Some(message.id) }
    }

    /// Sets the message that is handled.
    #[must_use]
    pub fn caused_by(self, message: MessageId) -> Self {
        Self { causation: Some(message), ..self }
    }

    /// Gives the correlation id.
    #[must_use]
    pub fn correlation(&self) -> Cow<'_, str> {
        match (&self.correlation, self.causation) {
            (Some(id), _) => Cow::Borrowed(id),
            (None, Some(message)) => Cow::Owned(message.to_string()),
            (None, None) => Cow::Borrowed(""),
        }
    }

    /// Gives the message that is handled.
    #[must_use]
    pub const fn causation(&self) -> Option<MessageId> {
        self.causation
    }

    /// Writes the headers of an event, where the event does not set them itself.
    pub fn apply_to(&self, headers: &mut Headers) {
        if headers.get(CORRELATION).is_none() {
            headers.keep(CORRELATION, self.correlation().into_owned());
        }
        if let (Some(message), None) = (self.causation, headers.get(CAUSATION)) {
            headers.keep(CAUSATION, message.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{MessageParts, Timestamp};

    fn received(headers: Headers) -> Message {
        Message::new(MessageParts {
            id: MessageId::generate(),
            sequence: None,
            source: "/shop".into(),
            event_type: "order.placed".into(),
            event_version: 1,
            topic: "orders".into(),
            aggregate_type: None,
            key: None,
            content_type: "application/json".into(),
            payload: "{}".into(),
            headers,
            created_at: Timestamp::from_micros(0),
            expires_at: None,
            retry: None,
        })
    }

    #[test]
    fn events_of_a_message_carry_its_correlation_id_or_its_own_id() {
        let first = received(Headers::new());
        let mut headers = Headers::new();
        CorrelationContext::of(&first).apply_to(&mut headers);
        let first = first.id.to_string();
        assert_eq!(
            (headers.get(CORRELATION), headers.get(CAUSATION)),
            (Some(&*first), Some(&*first))
        );
        let second = received(headers);
        let mut headers = Headers::new();
        CorrelationContext::of(&second).apply_to(&mut headers);
        let second = second.id.to_string();
        assert_eq!(
            (headers.get(CORRELATION), headers.get(CAUSATION)),
            (Some(&*first), Some(&*second))
        );
    }

    #[test]
    fn headers_that_an_event_sets_itself_stay() {
        let mut headers = Headers::new();
        headers.insert(CORRELATION, "mine").expect("legal");
        let correlation = CorrelationContext::new("theirs").expect("legal");
        correlation.apply_to(&mut headers);
        assert_eq!((headers.get(CORRELATION), headers.get(CAUSATION)), (Some("mine"), None));
        let cause = MessageId::generate();
        correlation.caused_by(cause).apply_to(&mut headers);
        assert_eq!(
            (headers.get(CORRELATION), headers.get(CAUSATION)),
            (Some("mine"), Some(&*cause.to_string()))
        );
    }

    #[test]
    fn an_invalid_correlation_id_is_an_error_and_a_received_one_is_dropped() {
        let long = "x".repeat(256);
        for id in ["", "a\nb", &long] {
            assert_eq!(CorrelationContext::new(id), Err(CorrelationError), "{id}");
        }
        assert_eq!(
            CorrelationContext::new(&long[1..]).expect("the longest").correlation(),
            &long[1..]
        );
        let mut headers = Headers::new();
        headers.keep(CORRELATION, "a\nb".into());
        let message = received(headers);
        assert_eq!(CorrelationContext::of(&message).correlation(), message.id.to_string());
    }
}
