//! The prefix of the tables, where several outboxes share a database.

use std::{fmt, str::FromStr};

/// Longest prefix. PostgreSQL cuts identifiers at 63 bytes; a name behind the prefix and its
/// underscore has at most 22.
pub(crate) const MAX_PREFIX: usize = 40;

/// Prefix of the tables of one outbox; the default has none.
///
/// With `shop` the events are in `shop_outbox_events`, by default in `outbox_events`.
///
/// ```
/// # use outbox_sea_orm::Namespace;
/// let shop: Namespace = "shop".parse()?;
/// assert_eq!(shop.prefix(), Some("shop"));
/// assert!(Namespace::new("drop table").is_err());
/// # Ok::<(), outbox_sea_orm::NamespaceError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Namespace(Option<Box<str>>);

/// A text that is no namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no namespace: it starts with a letter or an underscore and has 1 to 40 letters, digits and underscores"
)]
pub struct NamespaceError(String);

impl Namespace {
    /// Checks a prefix.
    ///
    /// # Errors
    /// [`NamespaceError`] unless it is `[A-Za-z_][A-Za-z0-9_]*`, at most 40 long.
    pub fn new(prefix: &str) -> Result<Self, NamespaceError> {
        let mut bytes = prefix.bytes();
        let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if starts
            && prefix.len() <= MAX_PREFIX
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        {
            Ok(Self(Some(prefix.into())))
        } else {
            Err(NamespaceError(prefix.chars().take(80).collect()))
        }
    }

    /// Gives the prefix, `None` for the default.
    #[must_use]
    pub fn prefix(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Gives the whole name of a table or index, not quoted.
    pub(crate) fn name(&self, base: &str) -> String {
        match &self.0 {
            Some(prefix) => format!("{prefix}_{base}"),
            None => base.to_owned(),
        }
    }

    /// Gives the name of the channel for wake notifications.
    pub(crate) fn channel(&self) -> String {
        self.name("outbox_wake")
    }
}

impl FromStr for Namespace {
    type Err = NamespaceError;
    fn from_str(prefix: &str) -> Result<Self, NamespaceError> {
        Self::new(prefix)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prefix().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_a_plain_identifier() {
        for good in ["shop", "_", "Shop_2", &"a".repeat(40)] {
            assert_eq!(Namespace::new(good).map(|n| n.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "1a", "a-b", "a b", "a\"", "a;drop table x", "\u{e4}", &"a".repeat(41)] {
            assert!(Namespace::new(bad).is_err(), "{bad}");
        }
    }
}
