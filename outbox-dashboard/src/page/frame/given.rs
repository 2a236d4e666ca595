//! What a query gives: bounded, with an empty field of a form as nothing.

use serde::{Deserialize, Deserializer, de::Error};
use std::str::FromStr;

/// Longest text of a query, in bytes: the longest key, in an encoding of four bytes a character.
const LONGEST: usize = 1_024;

/// Reads a part of a query; an empty one is none.
///
/// # Errors
/// A text that is too long, has a NUL, or cannot be read as what is asked for.
pub(crate) fn given<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
{
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > LONGEST {
        return Err(D::Error::custom(format!("a text has more than {LONGEST} bytes")));
    }
    if text.contains('\0') {
        return Err(D::Error::custom("a text has a NUL, which no database has"));
    }
    // The text itself is not repeated: it is a stranger's.
    text.parse().map(Some).map_err(|_| D::Error::custom("it has not the form that is asked for"))
}
