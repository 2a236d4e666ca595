//! Extra attributes of an event, sorted by name.

use std::collections::BTreeMap;

/// Attribute names that the envelope itself uses. `dataschema` is not among them: it is set like any header.
const RESERVED: &[&str] = &[
    "id",
    "source",
    "type",
    "subject",
    "time",
    "specversion",
    "datacontenttype",
    "data",
    "data_base64",
    "partitionkey",
    "sequence",
    "expirytime",
    "eventversion",
    "aggregatetype",
    "topic",
];
/// CloudEvents recommends 20; 64 leaves room for names that other systems gave.
const MAX_NAME: usize = 64;

/// Extra attributes of an event: CloudEvents extensions, sorted by name.
///
/// ```
/// # use outbox_core::event::{HeaderError, Headers};
/// let mut headers = Headers::new();
/// headers.insert("tenant", "acme")?;
/// assert_eq!(headers.get("tenant"), Some("acme"));
/// assert!(matches!(headers.insert("Tenant-Id", "acme"), Err(HeaderError::Name(_))));
/// assert!(matches!(headers.insert("source", "shop"), Err(HeaderError::Reserved(_))));
/// # Ok::<(), HeaderError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(BTreeMap<String, String>);

/// A header that no transport could carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The name is not 1 to 64 of `a-z` and `0-9`.
    #[error("a header name has 1 to 64 characters of a-z and 0-9 (CloudEvents), not `{0}`")]
    Name(String),
    /// The name belongs to the envelope.
    #[error("the header name `{0}` belongs to the envelope")]
    Reserved(String),
    /// The value holds a control character.
    #[error("the value of header `{0}` holds a control character")]
    Value(String),
}

impl Headers {
    /// Makes an empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Sets one header, replacing a former value.
    ///
    /// # Errors
    /// [`HeaderError`] when the name or the value could not travel.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<(), HeaderError> {
        let (name, value) = (name.into(), value.into());
        Self::check_name(&name)?;
        if value.chars().any(|c| c.is_control()) {
            return Err(HeaderError::Value(name));
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// Keeps a received attribute under a name of the envelope that has no place for its value, such as a `subject` that
    /// is not the key. The caller has checked the value.
    pub(crate) fn keep(&mut self, name: &'static str, value: String) {
        self.0.insert(name.to_owned(), value);
    }

    /// Checks a name by the rules of CloudEvents.
    ///
    /// # Errors
    /// [`HeaderError`] when it is empty, too long, has other characters than a-z and 0-9, or belongs to the envelope.
    pub fn check_name(name: &str) -> Result<(), HeaderError> {
        if name.is_empty()
            || name.len() > MAX_NAME
            || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        {
            return Err(HeaderError::Name(name.chars().take(MAX_NAME).collect()));
        }
        if RESERVED.contains(&name) {
            return Err(HeaderError::Reserved(name.to_owned()));
        }
        Ok(())
    }

    /// Gives the value of a header.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Removes a header and gives its value.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Goes through all headers in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Tells how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the headers as the JSON object that the store keeps.
    #[must_use]
    pub fn to_json(&self) -> String {
        if self.0.is_empty() { "{}".to_owned() } else { serde_json::json!(self.0).to_string() }
    }

    /// Reads the headers back from the store's JSON object.
    ///
    /// # Errors
    /// What the JSON reader said, when the text is no object of strings.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        if text == "{}" { Ok(Self::new()) } else { serde_json::from_str(text).map(Self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_stored_form_is_one_json_object_sorted_by_name() {
        let mut headers = Headers::new();
        assert_eq!(headers.to_json(), "{}");
        for (name, value) in [("tenant", "acme"), ("author", "\"Ann\" \\ Straße")] {
            headers.insert(name, value).expect("it can travel");
        }
        headers.insert("tenant", "other").expect("it replaces the first");
        assert_eq!(headers.to_json(), r#"{"author":"\"Ann\" \\ Straße","tenant":"other"}"#);
        assert_eq!(headers.get("tenant"), Some("other"));
        assert_eq!((headers.remove("tenant").as_deref(), headers.len()), (Some("other"), 1));
    }

    #[test]
    fn names_and_values_that_could_not_travel_are_refused() {
        let mut headers = Headers::new();
        let long = "x".repeat(MAX_NAME + 1);
        for name in ["", "Tenant", "tenant-id", "tenant_id", "ü", "a b", &long] {
            assert!(matches!(headers.insert(name, ""), Err(HeaderError::Name(_))), "{name}");
        }
        for name in RESERVED {
            assert!(headers.insert(*name, "").is_err(), "{name}");
        }
        for value in ["a\r\nb", "\0", "\u{7f}", "\u{85}"] {
            assert_eq!(
                headers.insert("tenant", value),
                Err(HeaderError::Value("tenant".to_owned()))
            );
        }
        assert!(headers.is_empty());
        headers.insert("x".repeat(MAX_NAME), "").expect("the longest name");
    }

    proptest! {
        #[test]
        fn what_was_stored_reads_back(pairs in prop::collection::vec(("[a-z0-9]{1,64}", "\\PC{0,40}"), 0..6)) {
            let mut headers = Headers::new();
            for (name, value) in pairs {
                // Names of the envelope among them are refused and left out.
                let _ = headers.insert(name, value);
            }
            prop_assert_eq!(Headers::from_json(&headers.to_json()).expect("it was written so"), headers);
        }

        #[test]
        fn any_text_is_headers_or_an_error(text in "\\PC{0,60}|\\{(\"[a-z]{1,3}\":(\"[a-z]{0,3}\"|[0-9]|null),?){0,3}\\}") {
            if let Ok(headers) = Headers::from_json(&text) {
                prop_assert_eq!(Headers::from_json(&headers.to_json()).expect("it was written so"), headers);
            }
        }
    }
}
