//! What strangers wrote, quoted for a shell.

/// Quotes a value for a shell, where it needs that.
pub(crate) fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', "'\\''"))
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
}
