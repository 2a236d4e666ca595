//! Roles and their rights.

use super::Dialect;

impl Dialect {
    /// Gives the query for the role of a connection, where the database has roles.
    pub(crate) const fn current_role(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some("SELECT current_user::text"),
            Self::MySql | Self::MariaDb => Some("SELECT CURRENT_USER()"),
            Self::Sqlite => None,
        }
    }

    /// Writes the statement that lets a role work with a table.
    pub(crate) fn grant(self, table: &str, role: &str) -> String {
        let role = match role.rsplit_once('@') {
            Some((user, host)) if self.is_mysql() => format!("'{user}'@'{host}'"),
            _ => self.quote(role),
        };
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}")
    }
}
