//! SQL for the sizes of values.

use super::Dialect;

impl Dialect {
    /// Writes how many bytes columns of one row have together, without reading them where the
    /// database can tell so.
    pub(crate) fn bytes_of(self, columns: &[&str]) -> String {
        let bytes = |column: &&str| match self {
            Self::Sqlite => format!("COALESCE(length(CAST({column} AS BLOB)), 0)"),
            Self::Postgres => format!("COALESCE(octet_length({column}), 0)::bigint"),
            Self::MySql | Self::MariaDb => format!("COALESCE(octet_length({column}), 0)"),
        };
        columns.iter().map(bytes).collect::<Vec<_>>().join(" + ")
    }

    /// Names the type of whole numbers to which a sum is cast.
    pub(crate) const fn whole_number(self) -> &'static str {
        match self {
            Self::Postgres => "bigint",
            Self::MySql | Self::MariaDb => "SIGNED",
            Self::Sqlite => "INTEGER",
        }
    }
}
