//! The names of the tables, with a prefix where several outboxes share a database.

use crate::dialect::Dialect;
use std::{fmt, str::FromStr};

/// Longest prefix. PostgreSQL cuts identifiers at 63 bytes; a name behind the prefix and its
/// underscore has at most 22.
pub(crate) const MAX_PREFIX: usize = 40;

/// Prefix of the tables of one outbox; the default has none.
///
/// With `shop` the events are in `shop_outbox_events`, by default in `outbox_events`.
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

/// Quoted names of all tables of an outbox.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    pub(crate) meta: String,
    pub(crate) events: String,
    pub(crate) archive: String,
    pub(crate) relays: String,
    pub(crate) partitions: String,
    pub(crate) retries: String,
    pub(crate) letters: String,
    pub(crate) unparked: String,
    pub(crate) scheduled: String,
    pub(crate) dedup: String,
    pub(crate) responses: String,
    pub(crate) inbox: String,
    pub(crate) deferred: String,
    pub(crate) instances: String,
    pub(crate) source: String,
    pub(crate) view: String,
    pub(crate) sagas: String,
    pub(crate) saga_log: String,
    pub(crate) saga_locks: String,
    pub(crate) saga_waits: String,
    pub(crate) barrier: String,
    /// SQLite's index of events by place.
    pub(crate) place: String,
}

impl Tables {
    pub(crate) fn new(dialect: Dialect, namespace: &Namespace) -> Self {
        let quoted = |base: &str| dialect.quote(&namespace.name(base));
        Self {
            meta: quoted("outbox_meta"),
            events: quoted("outbox_events"),
            archive: quoted("outbox_archive"),
            relays: quoted("outbox_relays"),
            partitions: quoted("outbox_partitions"),
            retries: quoted("outbox_retries"),
            letters: quoted("outbox_dead_letters"),
            unparked: quoted("outbox_unparked"),
            scheduled: quoted("outbox_scheduled"),
            dedup: quoted("outbox_dedup"),
            responses: quoted("outbox_responses"),
            inbox: quoted("outbox_inbox"),
            deferred: quoted("outbox_deferred"),
            instances: quoted("outbox_instances"),
            source: quoted("outbox_source"),
            view: quoted("outbox_view"),
            sagas: quoted("outbox_sagas"),
            saga_log: quoted("outbox_saga_log"),
            saga_locks: quoted("outbox_saga_locks"),
            saga_waits: quoted("outbox_saga_waits"),
            barrier: quoted("outbox_saga_barrier"),
            place: quoted("outbox_events_place"),
        }
    }

    /// Puts the table names in place of their marks: `{events}`, `{archive}` and so on.
    pub(crate) fn fill(&self, sql: &str) -> String {
        let mut filled = sql.to_owned();
        for (mark, name) in [
            ("{meta}", &self.meta),
            ("{events}", &self.events),
            ("{archive}", &self.archive),
            ("{relays}", &self.relays),
            ("{partitions}", &self.partitions),
            ("{retries}", &self.retries),
            ("{letters}", &self.letters),
            ("{unparked}", &self.unparked),
            ("{scheduled}", &self.scheduled),
            ("{dedup}", &self.dedup),
            ("{responses}", &self.responses),
            ("{inbox}", &self.inbox),
            ("{deferred}", &self.deferred),
            ("{instances}", &self.instances),
            ("{source}", &self.source),
            ("{view}", &self.view),
            ("{sagas}", &self.sagas),
            ("{saga_log}", &self.saga_log),
            ("{saga_locks}", &self.saga_locks),
            ("{saga_waits}", &self.saga_waits),
            ("{barrier}", &self.barrier),
            ("{place}", &self.place),
        ] {
            filled = filled.replace(mark, name);
        }
        filled
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

    #[test]
    fn tables_carry_the_prefix_and_are_quoted() {
        let shop = Namespace::new("shop").unwrap();
        assert_eq!(Tables::new(Dialect::Postgres, &shop).events, "\"shop_outbox_events\"");
        assert_eq!(
            Tables::new(Dialect::MariaDb, &Namespace::default()).letters,
            "`outbox_dead_letters`"
        );
    }
}
