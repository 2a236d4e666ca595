//! From the payload of an older version to the value that today's program reads.

use super::{DecodeError, Message, variant::VariantContent, write_json};
use crate::runtime::full_text::BoxError;
use serde::{Serialize, de::DeserializeOwned, de::IgnoredAny};
use std::borrow::Cow;

/// A message on its way to a value: its payload is raised version by version, then read.
///
/// The `OutboxEvent` derive writes this from `#[outbox(upcast(1 = v1_to_v2))]`. By hand:
///
/// ```
/// use outbox_core::event::{DecodeError, DecodeEvent, EventContract, EventType, Message, Upcast};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize)]
/// struct OrderPlacedV1 { id: i64, euros: i64 }
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct OrderPlaced { id: i64, cents: i64 }
///
/// fn v1_to_v2(old: OrderPlacedV1) -> Result<OrderPlaced, std::convert::Infallible> {
///     Ok(OrderPlaced { id: old.id, cents: old.euros * 100 })
/// }
///
/// impl EventContract for OrderPlaced {
///     const TYPES: &'static [EventType] = &[EventType { name: "order.placed", version: 2, topic: "orders" }];
/// }
///
/// impl DecodeEvent for OrderPlaced {
///     fn decode(message: &Message) -> Result<Self, DecodeError> {
///         Upcast::begin(message, 2).step(1, v1_to_v2)?.json()
///     }
/// }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Upcast<'m> {
    message: &'m Message,
    /// Version of `payload`.
    version: u16,
    /// Version that the program reads.
    target: u16,
    payload: Cow<'m, [u8]>,
}

/// A step from an older version that failed.
#[derive(Debug, thiserror::Error)]
#[error("the step from version {from} to the next failed")]
#[non_exhaustive]
pub struct UpcastError {
    /// The version that the step begins at.
    pub from: u16,
    /// The step's error.
    pub source: BoxError,
}

impl<'m> Upcast<'m> {
    /// Begins with a message as received; `target` is the version that the program reads.
    pub fn begin(message: &'m Message, target: u16) -> Self {
        Self {
            message,
            version: message.event_version,
            target,
            payload: Cow::Borrowed(&message.payload),
        }
    }

    /// Raises a payload of version `from` to the next one; a payload of another version is left alone.
    ///
    /// The step takes the old shape and gives the new one: types of serde, or `serde_json::Value` for both. It is pure: the same
    /// message may be read many times.
    ///
    /// # Errors
    /// [`DecodeError::Payload`] when the payload does not have the old shape, or with the [`UpcastError`] of the step. The step's
    /// error is logged and stored, so it should not quote the payload.
    pub fn step<Old, New, E>(
        mut self,
        from: u16,
        step: impl FnOnce(Old) -> Result<New, E>,
    ) -> Result<Self, DecodeError>
    where
        Old: DeserializeOwned,
        New: Serialize,
        E: Into<BoxError>,
    {
        if self.version != from || from >= self.target {
            return Ok(self);
        }
        let old = serde_json::from_slice(&self.payload)
            .map_err(|e| DecodeError::json(self.message, &e))?;
        let failed = |source: BoxError| DecodeError::Payload {
            event_type: self.message.event_type.clone(),
            source: Box::new(UpcastError { from, source }),
        };
        let new = step(old).map_err(|e| failed(e.into()))?;
        // What is said is stored with the message.
        let raised =
            write_json(|out| new.serialize(out)).map_err(|e| failed(e.without_values().into()))?;
        self.payload = Cow::Owned(raised);
        self.version = from.saturating_add(1);
        Ok(self)
    }

    /// Reads the raised payload as JSON.
    ///
    /// # Errors
    /// [`DecodeError::UnknownVersion`] when the steps did not lead to the version that the program reads, or the message is newer;
    /// [`DecodeError::Payload`] when the shape does not fit.
    pub fn json<T: DeserializeOwned>(self) -> Result<T, DecodeError> {
        self.read(|json| T::deserialize(json))
    }

    /// Reads a payload without content: any JSON will do, so that later versions can add to it.
    ///
    /// # Errors
    /// As of [`json`](Self::json).
    pub fn unit(self) -> Result<(), DecodeError> {
        self.json::<IgnoredAny>().map(drop)
    }

    /// Reads the payload as the content of an enum's variant by a function that emitted code brings.
    ///
    /// # Errors
    /// As of [`json`](Self::json).
    #[doc(hidden)]
    pub fn variant<T>(
        self,
        name: &'static str,
        read: impl FnOnce(VariantContent<'_, '_>) -> Result<T, serde_json::Error>,
    ) -> Result<T, DecodeError> {
        self.read(|json| read(VariantContent { name, json }))
    }

    fn read<T>(
        self,
        read: impl FnOnce(
            &mut serde_json::Deserializer<serde_json::de::SliceRead<'_>>,
        ) -> Result<T, serde_json::Error>,
    ) -> Result<T, DecodeError> {
        if self.version != self.target {
            return Err(DecodeError::UnknownVersion {
                event_type: self.message.event_type.clone(),
                version: self.message.event_version,
                supported: self.target,
            });
        }
        let mut json = serde_json::Deserializer::from_slice(&self.payload);
        let value = read(&mut json).and_then(|value| json.end().map(|()| value));
        value.map_err(|e| DecodeError::json(self.message, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{MessageId, MessageParts, Timestamp};
    use bytes::Bytes;
    use std::convert::Infallible;

    fn message(version: u16, payload: &'static str) -> Message {
        Message::new(MessageParts {
            id: MessageId::generate(),
            sequence: None,
            source: "/test".to_owned(),
            event_type: "sum".to_owned(),
            event_version: version,
            topic: "sums".to_owned(),
            aggregate_type: None,
            key: None,
            content_type: "application/json".to_owned(),
            payload: Bytes::from_static(payload.as_bytes()),
            headers: crate::event::Headers::new(),
            created_at: Timestamp::from_micros(1),
            expires_at: None,
            retry: None,
        })
    }

    /// Reads version 3 of a sum; each step adds one.
    fn read(message: &Message) -> Result<i64, DecodeError> {
        let add = |sum: i64| Ok::<_, Infallible>(sum + 1);
        Upcast::begin(message, 3).step(1, add)?.step(2, add)?.json()
    }

    #[test]
    fn each_version_takes_the_steps_that_it_lacks() {
        for (version, sum) in [(1, 12), (2, 11), (3, 10)] {
            assert_eq!(read(&message(version, "10")).expect("it is readable"), sum);
        }
    }

    #[test]
    fn versions_without_a_way_to_the_target_are_unknown() {
        for version in [0, 4, u16::MAX] {
            let error = read(&message(version, "10")).expect_err("no such version");
            assert_eq!(
                error.to_string(),
                format!("version {version} of `sum` is not understood; this program reads 3")
            );
        }
        let gap = message(1, "10");
        let stopped = Upcast::begin(&gap, 3)
            .step(1, |sum: i64| Ok::<_, Infallible>(sum))
            .expect("the step is good");
        assert!(matches!(
            stopped.unit(),
            Err(DecodeError::UnknownVersion { version: 1, supported: 3, .. })
        ));
        let beyond = message(3, "10");
        let same = Upcast::begin(&beyond, 3)
            .step(3, |_: i64| Err::<i64, _>("it ran"))
            .expect("it does not run");
        assert_eq!(same.json::<i64>().expect("it is readable"), 10);
    }

    #[test]
    fn numbers_pass_through_steps_unchanged() {
        let large = message(1, "18446744073709551617");
        let keep = |sum: u128| Ok::<_, Infallible>(sum);
        let read: u128 =
            Upcast::begin(&large, 2).step(1, keep).and_then(Upcast::json).expect("it is readable");
        assert_eq!(read, 18_446_744_073_709_551_617);
    }

    #[test]
    fn a_step_that_makes_a_number_that_json_has_not_fails_and_names_the_field() {
        #[derive(Serialize)]
        struct Mean {
            mean: f64,
        }
        let mean = |sum: f64| Ok::<_, Infallible>(Mean { mean: sum / 0.0 });
        let error = Upcast::begin(&message(1, "0"), 2).step(1, mean).expect_err("it is no number");
        let error = std::error::Error::source(&error).expect("the step's");
        let said = error.source().expect("the writer's").to_string();
        assert!(said.starts_with("`mean` is NaN"), "{said}");
    }

    /// Emitted code finds this very crate too.
    #[cfg(feature = "macros")]
    #[test]
    fn a_derived_event_is_read_in_this_crate_too() {
        use crate::event::{DecodeEvent as _, EventMeta, OutboxEvent as _};

        #[derive(serde::Serialize, serde::Deserialize, crate::OutboxEvent)]
        #[outbox(type = "sum", version = 2, upcast(1 = double))]
        struct Sum(#[outbox(key)] i64);

        fn double(old: i64) -> Result<i64, Infallible> {
            Ok(old * 2)
        }

        let sum = Sum::decode(&message(1, "21")).expect("it is readable");
        assert_eq!(sum.meta(), EventMeta::new("sum").version(2).key(Some("42")));
    }
}
