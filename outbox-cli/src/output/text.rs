//! What strangers wrote, quoted for a shell and escaped in a document.

use outbox_core::admin::is_unseen;
use std::fmt::Write;

/// Quotes a value for a shell, where it needs that.
pub(crate) fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', "'\\''"))
}

/// Writes as escapes of JSON what a terminal would obey inside of its texts.
pub(crate) fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if (c.is_control() && c != '\n') || is_unseen(c) {
            // All of these have four digits. Writing into a string does not fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_quoted_for_the_shell_where_it_needs_that() {
        for (value, quote) in [
            ("billing", "billing"),
            ("a/b-c_d.e:f@g", "a/b-c_d.e:f@g"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's; rm", "'it'\\''s; rm'"),
        ] {
            assert_eq!(quoted(value), quote);
        }
    }

    #[test]
    fn a_document_has_the_same_texts_and_nothing_that_a_terminal_obeys() {
        let value = serde_json::json!({ "a\u{9b}": ["\u{7f}\u{202e}\u{feff}", "grün \n €"] });
        let json = serde_json::to_string_pretty(&value).unwrap();
        let escaped = escaped_json(&json);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        let obeyed = |c: char| (c.is_control() && c != '\n') || is_unseen(c);
        assert!(!escaped.contains(obeyed), "{escaped:?}");
    }
}
