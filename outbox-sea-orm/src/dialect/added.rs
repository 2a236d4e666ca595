//! Columns and indexes that later versions add to existing tables.

use super::{Dialect, IndexDef, create_index, mysql, sqlite, typed};

/// An index that a later version adds to a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddedIndex {
    /// The table's name without prefix.
    pub(crate) table: &'static str,
    /// The index.
    pub(crate) index: IndexDef,
}

/// A column that a later version adds to a table; it is NULL in existing rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddedColumn {
    /// The table's name without prefix.
    pub(crate) table: &'static str,
    /// Its name.
    pub(crate) name: &'static str,
    /// Its type, with a mark.
    pub(crate) kind: &'static str,
}

impl Dialect {
    /// Writes the statement that adds an index to a table.
    pub(crate) fn add_index(self, added: &AddedIndex, name_of: &dyn Fn(&str) -> String) -> String {
        create_index(self, added.table, &added.index, name_of)
    }

    /// Writes the query whether an index exists, where the statement that adds it has no
    /// `IF NOT EXISTS`.
    pub(crate) fn has_index(
        self,
        added: &AddedIndex,
        name_of: &dyn Fn(&str) -> String,
    ) -> Option<String> {
        self.is_mysql().then(|| mysql::has_index(&name_of(added.table), &name_of(added.index.name)))
    }

    /// Writes the statement that adds a column to a table.
    pub(crate) fn add_column(
        self,
        added: &AddedColumn,
        name_of: &dyn Fn(&str) -> String,
    ) -> String {
        let (word, name, uuid) = match self {
            Self::MySql | Self::MariaDb => ("VARCHAR(128)", "VARCHAR(255)", "BINARY(16)"),
            Self::Postgres => ("TEXT", "TEXT", "UUID"),
            Self::Sqlite => ("TEXT", "TEXT", "BLOB"),
        };
        let unless_there = if self == Self::Postgres { "IF NOT EXISTS " } else { "" };
        let kind = typed(added.kind, &[("{word}", word), ("{name}", name), ("{uuid}", uuid)]);
        format!(
            "ALTER TABLE {} ADD COLUMN {unless_there}{} {kind}",
            self.quote(&name_of(added.table)),
            added.name
        )
    }

    /// Writes the query whether a column exists, where the statement that adds it has no
    /// `IF NOT EXISTS`.
    pub(crate) fn has_column(
        self,
        added: &AddedColumn,
        name_of: &dyn Fn(&str) -> String,
    ) -> Option<String> {
        let table = name_of(added.table);
        match self {
            Self::Postgres => None,
            Self::MySql | Self::MariaDb => Some(mysql::has_column(&table, added.name)),
            Self::Sqlite => Some(sqlite::has_column(&table, added.name)),
        }
    }
}
