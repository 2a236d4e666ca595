//! What differs by database where handlers are tried.

use super::Dialect;

/// How strings, comments and names in quotes are written.
///
/// # Source
/// `src/backend/parser/scan.l` of PostgreSQL; MySQL manual, "String Literals", "Comments" and "Schema
/// Object Names", with MariaDB's `/*M! .. */`; `src/tokenize.c` of SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SqlSyntax {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    MySql,
    /// SQLite.
    Sqlite,
}

impl SqlSyntax {
    /// Tells whether `/* /* */ */` is one comment.
    pub(crate) const fn nests_comments(self) -> bool {
        matches!(self, Self::Postgres)
    }

    /// Tells whether the server runs what stands in `/*! .. */`.
    pub(crate) const fn runs_comments(self) -> bool {
        matches!(self, Self::MySql)
    }

    /// Tells whether `--` begins a comment before white space alone.
    pub(crate) const fn comments_need_space(self) -> bool {
        matches!(self, Self::MySql)
    }

    /// Tells whether `#` begins a comment.
    pub(crate) const fn has_hash_comments(self) -> bool {
        matches!(self, Self::MySql)
    }

    /// Tells whether a carriage return ends a comment of one line.
    pub(crate) const fn ends_lines_by_return(self) -> bool {
        matches!(self, Self::Postgres)
    }

    /// Tells whether a backslash escapes in each string.
    pub(crate) const fn escapes_by_backslash(self) -> bool {
        matches!(self, Self::MySql)
    }

    /// Tells whether a backslash escapes in strings `E'..'`.
    pub(crate) const fn has_escape_strings(self) -> bool {
        matches!(self, Self::Postgres)
    }

    /// Tells whether a string may stand between two `$tag$`.
    pub(crate) const fn has_dollar_strings(self) -> bool {
        matches!(self, Self::Postgres)
    }

    /// Tells whether a name may stand between backticks.
    pub(crate) const fn has_backticks(self) -> bool {
        matches!(self, Self::MySql | Self::Sqlite)
    }

    /// Tells whether a name may stand between brackets.
    pub(crate) const fn has_brackets(self) -> bool {
        matches!(self, Self::Sqlite)
    }
}

impl Dialect {
    /// Tells how strings, comments and names in quotes are written.
    pub(crate) const fn syntax(self) -> SqlSyntax {
        match self {
            Self::Postgres => SqlSyntax::Postgres,
            Self::MySql | Self::MariaDb => SqlSyntax::MySql,
            Self::Sqlite => SqlSyntax::Sqlite,
        }
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
