//! What differs by database where handlers are tried.

use super::Dialect;

impl Dialect {
    /// Tells whether a backslash escapes inside of strings, `#` begins a comment, `--` does so only
    /// before white space, and the server runs what stands in `/*! .. */`.
    ///
    /// # Source
    /// MySQL manual, "String Literals" and "Comments"; MariaDB's `/*M! .. */`.
    pub(crate) const fn lexes_as_mysql(self) -> bool {
        self.is_mysql()
    }

    /// Gives the statement that checks at once what would be checked at COMMIT.
    pub(crate) const fn check_constraints_now(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some("SET CONSTRAINTS ALL IMMEDIATE"),
            // InnoDB has no constraint that is checked at COMMIT.
            Self::MySql | Self::MariaDb | Self::Sqlite => None,
        }
    }

    /// Gives a query whose result is not 0 where constraints are checked at COMMIT alone, and what
    /// follows from that for a try.
    pub(crate) const fn checked_at_commit_alone(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Sqlite => Some((
                "SELECT count(*) FROM sqlite_master \
                 WHERE type = 'table' AND sql LIKE '%DEFERRABLE%'",
                "SQLite checks DEFERRABLE constraints at COMMIT, which a try does not reach: \
                 whether they hold is not known",
            )),
            Self::Postgres | Self::MySql | Self::MariaDb => None,
        }
    }
}
