//! Values as they are stored: the text that serde wrote, so that no number or field is changed on
//! the way.

use crate::event::{JsonError, write_json};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::value::RawValue;
use std::{fmt, sync::Arc};

/// JSON text. Logs and errors show its length only, since it is the user's data.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Arc<str>);

/// Most bytes of one value: a saga's row, with its data, its outputs and a record, is written in
/// one statement.
pub(super) const MAX_VALUE: usize = 960 * 1024;

impl Json {
    /// Encodes a value.
    ///
    /// # Errors
    /// [`JsonError`] with the field that has no form that reads back as the same value, such as
    /// NaN.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, JsonError> {
        let bytes = write_json(|out| value.serialize(out))?;
        let text = String::from_utf8(bytes).expect("the writer writes text");
        Ok(Self(text.into()))
    }

    /// Wraps a text that is JSON.
    ///
    /// # Errors
    /// The parser's error.
    pub fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(text).map(|raw| Self(raw.get().into()))
    }

    /// Decodes the value.
    ///
    /// # Errors
    /// serde's error.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }

    /// Tells whether the value is longer than the longest that is stored.
    pub(super) fn is_too_long(&self) -> bool {
        self.0.len() > MAX_VALUE
    }

    /// Gives the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Gives the value `null`.
    pub(super) fn null() -> Self {
        Self("null".into())
    }

    /// Gives the value `{}`.
    pub(super) fn empty_object() -> Self {
        Self("{}".into())
    }

    /// Joins values to one list.
    pub(super) fn list<'a>(values: impl Iterator<Item = &'a Self>) -> Self {
        let texts: Vec<&str> = values.map(Self::as_str).collect();
        Self(format!("[{}]", texts.join(",")).into())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.0.len())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(raw.get().into()))
    }
}

/// Reads a field that is present, even where it is `null`: for optional fields that are omitted
/// where there is no value.
pub(super) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}
