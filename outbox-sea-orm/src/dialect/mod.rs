//! All that differs by database. The rest of the crate writes one statement for all databases, with
//! marks that this module replaces: table names, `{now}`, lock clauses, and `?` for parameters.

mod added;
mod behaviour;
mod columns;
mod drivers;
mod error_codes;
mod fenced;
mod inbox;
mod limits;
mod measure;
mod mysql;
mod postgres;
mod read;
mod rights;
mod sqlite;
mod tables;
mod trials;
mod doctor;

pub(crate) use added::{AddedColumn, AddedIndex};
pub(crate) use columns::{EVENT_COLUMNS, ORIGIN_CONSUMER, ORIGIN_RELAY};
#[cfg(feature = "sqlx-postgres")]
pub(crate) use drivers::postgres_options;
pub(crate) use drivers::{
    Arg, DriverConnection, DriverTarget, Drivers, PoolOptions, close_pool, limits_like_own,
    used_connections,
};
pub(crate) use error_codes::{DbErrorClass, ErrorCode, TxEffect};
pub use limits::TransactionLimits;
#[cfg(feature = "sqlx-postgres")]
pub(crate) use postgres::NOTIFY;
pub(crate) use read::{ROWS_SLACK, column, kind};
pub(crate) use tables::Tables;
use tables::fill_marks;
pub(crate) use trials::SqlSyntax;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use std::{fmt::Write as _, str::FromStr, sync::Arc, time::Duration};

/// The databases, as far as their SQL differs.
///
/// ```
/// # use outbox_sea_orm::{Dialect, Namespace, Schema};
/// for dialect in [Dialect::Postgres, Dialect::MySql, Dialect::MariaDb, Dialect::Sqlite] {
///     let sql = Schema::sql(dialect, &Namespace::default(), 16, 0, Schema::VERSION)?;
///     assert!(sql.contains("outbox_events"));
/// }
/// # Ok::<(), sea_orm::DbErr>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// PostgreSQL 13 and later.
    Postgres,
    /// MySQL 8.0.17 and later.
    MySql,
    /// MariaDB 10.6 and later.
    MariaDb,
    /// SQLite 3.35 and later.
    Sqlite,
}

impl FromStr for Dialect {
    type Err = ();

    /// Reads `postgres`, `mysql`, `mariadb` or `sqlite`.
    fn from_str(s: &str) -> Result<Self, ()> {
        match s {
            "postgres" => Ok(Self::Postgres),
            "mysql" => Ok(Self::MySql),
            "mariadb" => Ok(Self::MariaDb),
            "sqlite" => Ok(Self::Sqlite),
            _ => Err(()),
        }
    }
}

/// A table as the migration describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableDef {
    /// Name without prefix.
    pub(crate) name: &'static str,
    /// Columns and constraints, with marks for types.
    pub(crate) body: &'static str,
    /// Whether rows come and go as in a queue.
    pub(crate) queue: bool,
    /// Its indexes beside the primary key.
    pub(crate) indexes: &'static [IndexDef],
}

/// An index as the migration describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexDef {
    /// Name without prefix.
    pub(crate) name: &'static str,
    /// Its columns.
    pub(crate) columns: &'static str,
    /// Its columns where an index can have no condition.
    pub(crate) columns_without_condition: &'static str,
    /// Which rows it covers, where the database can say so.
    pub(crate) condition: Option<&'static str>,
    /// Whether it forbids repeats.
    pub(crate) unique: bool,
}

impl Dialect {
    /// Detects the database, and refuses one whose driver is missing.
    pub(crate) async fn detect<C: ConnectionTrait>(conn: &C) -> Result<Self, DbErr> {
        if let Some(missing) = Drivers::BUILT.missing_for(conn.get_database_backend()) {
            return Err(DbErr::Custom(missing));
        }
        match conn.get_database_backend() {
            DbBackend::Postgres => Ok(Self::Postgres),
            DbBackend::Sqlite => Ok(Self::Sqlite),
            DbBackend::MySql => {
                let query = Statement::from_string(DbBackend::MySql, "SELECT version()");
                let row = conn.query_one_raw(query).await?;
                let version: String = match row {
                    Some(row) => row.try_get_by_index(0)?,
                    None => {
                        return Err(DbErr::Custom("the server does not say its version".into()));
                    }
                };
                Ok(if version.to_lowercase().contains("mariadb") {
                    Self::MariaDb
                } else {
                    Self::MySql
                })
            }
            _ => Err(DbErr::BackendNotSupported { db: "unknown", ctx: "outbox" }),
        }
    }

    /// Tells SeaORM's name for it.
    #[must_use]
    pub const fn backend(self) -> DbBackend {
        match self {
            Self::Postgres => DbBackend::Postgres,
            Self::MySql | Self::MariaDb => DbBackend::MySql,
            Self::Sqlite => DbBackend::Sqlite,
        }
    }

    /// Tells whether it is MySQL or MariaDB.
    const fn is_mysql(self) -> bool {
        matches!(self, Self::MySql | Self::MariaDb)
    }

    /// Gives the query for the largest statement in bytes, where a larger one ends the connection.
    pub(crate) const fn largest_packet(self) -> Option<&'static str> {
        match self {
            Self::MySql | Self::MariaDb => Some("SELECT CAST(@@max_allowed_packet AS SIGNED)"),
            Self::Postgres | Self::Sqlite => None,
        }
    }

    /// Quotes an identifier.
    pub(crate) fn quote(self, name: &str) -> String {
        if self.is_mysql() {
            format!("`{}`", name.replace('`', "``"))
        } else {
            format!("\"{}\"", name.replace('"', "\"\""))
        }
    }

    /// Gives the present instant in microseconds, the same for the whole statement.
    pub(crate) const fn now(self) -> &'static str {
        match self {
            Self::Postgres => postgres::NOW,
            Self::MySql | Self::MariaDb => mysql::NOW,
            Self::Sqlite => sqlite::NOW,
        }
    }

    /// Replaces the marks of a statement and writes its parameters the database's way.
    ///
    /// Marks are the tables, `{now}`, `{for_update}`, `{for_share}` and `{skip_locked}`. No
    /// statement has a `?` that is no parameter.
    pub(crate) fn sql(self, tables: &Tables, sql: &str) -> Arc<str> {
        let (update, share, skip) = match self {
            Self::Postgres | Self::MySql => (" FOR UPDATE", " FOR SHARE", " SKIP LOCKED"),
            Self::MariaDb => (" FOR UPDATE", " LOCK IN SHARE MODE", " SKIP LOCKED"),
            // A write transaction holds the whole file.
            Self::Sqlite => ("", "", ""),
        };
        let filled = fill_marks(sql, |mark| match mark {
            "now" => Some(self.now()),
            "for_update" => Some(update),
            "for_share" => Some(share),
            "skip_locked" => Some(skip),
            table => tables.named(table),
        });
        if self == Self::Postgres { numbered(&filled).into() } else { filled.into() }
    }

    /// Writes that a column is one of `n` values: PostgreSQL takes a list, the others each value;
    /// see [`padded`](Self::padded).
    pub(crate) fn any(self, column: &str, n: usize) -> String {
        match self {
            Self::Postgres => format!("{column} = ANY(?)"),
            _ => format!("{column} IN ({})", vec!["?"; self.padded(n)].join(", ")),
        }
    }

    /// Gives how many values stand for `n` of them, the last one repeated: powers of two, so that
    /// there are few statements.
    pub(crate) const fn padded(self, n: usize) -> usize {
        if matches!(self, Self::Postgres) { 1 } else { n.next_power_of_two() }
    }

    /// Writes a payload of no bytes.
    pub(crate) const fn no_bytes(self) -> &'static str {
        match self {
            Self::Postgres => "''::bytea",
            Self::MySql | Self::MariaDb | Self::Sqlite => "X''",
        }
    }

    /// Writes that a flag is set, in the form for which the database uses an index.
    pub(crate) fn is_set(self, column: &str) -> String {
        if self.is_mysql() { format!("{column} = 1") } else { column.to_owned() }
    }

    /// Forces the index on the id alone, where there is one.
    pub(crate) const fn by_id(self) -> &'static str {
        if self.is_mysql() { " FORCE INDEX (outbox_event_id)" } else { "" }
    }

    /// Lists the settings of a relay's connection, as assignments; no statement and no wait on it
    /// outlasts `limit`.
    pub(crate) fn settings(self, limit: Duration, search_path: &str) -> Vec<String> {
        match self {
            Self::Postgres => postgres::settings(limit, search_path),
            Self::MySql => mysql::settings(limit, false),
            Self::MariaDb => mysql::settings(limit, true),
            Self::Sqlite => Vec::new(),
        }
    }

    /// Gives a query whose result is not 0 on a database that no relay can work on, and the reason.
    pub(crate) const fn unsupported_check(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Postgres => Some(postgres::UNSUPPORTED_CHECK),
            Self::MySql | Self::MariaDb => Some(mysql::UNSUPPORTED_CHECK),
            Self::Sqlite => None,
        }
    }

    /// Gives the statement that switches the database to the mode in which readers and the writer
    /// do not wait for each other, where that is not the default.
    pub(crate) const fn write_ahead(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => Some("PRAGMA journal_mode = WAL"),
            Self::Postgres | Self::MySql | Self::MariaDb => None,
        }
    }

    /// Writes the statements that create a table with its indexes, where they are not there yet.
    pub(crate) fn create_table(
        self,
        table: &TableDef,
        name_of: &dyn Fn(&str) -> String,
    ) -> Vec<String> {
        match self {
            Self::Postgres => postgres::create_table(table, name_of),
            Self::MySql => mysql::create_table(table, name_of, "utf8mb4_0900_bin"),
            Self::MariaDb => mysql::create_table(table, name_of, "utf8mb4_nopad_bin"),
            Self::Sqlite => sqlite::create_table(table, name_of),
        }
    }

    /// Writes an expression that shows microseconds as an instant that people can read.
    pub(crate) fn readable(self, column: &str) -> String {
        match self {
            Self::Postgres => format!("to_timestamp({column} / 1000000.0)"),
            Self::MySql | Self::MariaDb => {
                format!("TIMESTAMPADD(MICROSECOND, {column}, '1970-01-01 00:00:00')")
            }
            Self::Sqlite => {
                format!("strftime('%Y-%m-%dT%H:%M:%fZ', {column} / 1000000.0, 'unixepoch')")
            }
        }
    }

    /// Writes the lock that keeps two installations of one outbox apart until the transaction ends,
    /// where the database needs it: there `CREATE TABLE IF NOT EXISTS` fails when another
    /// transaction creates the table at the same time.
    pub(crate) fn install_lock_sql(self, name: &str) -> Option<String> {
        match self {
            Self::Postgres => Some(postgres::install_lock_sql(name)),
            Self::MySql | Self::MariaDb | Self::Sqlite => None,
        }
    }

    /// Writes the statements that take and release the same lock where the database has it for a
    /// session alone: there CREATE TABLE commits the transaction.
    pub(crate) fn install_lock_of_session(self, name: &str) -> Option<(String, String)> {
        match self {
            Self::MySql | Self::MariaDb => Some(mysql::install_lock_of_session(name)),
            Self::Postgres | Self::Sqlite => None,
        }
    }

    /// Writes the first parameter of a statement.
    pub(crate) const fn first_parameter(self) -> &'static str {
        match self {
            Self::Postgres => "$1",
            Self::MySql | Self::MariaDb | Self::Sqlite => "?",
        }
    }

    /// Writes an instant that is missing.
    pub(crate) const fn no_instant(self) -> &'static str {
        match self {
            Self::Postgres => "NULL::timestamptz",
            Self::MySql | Self::MariaDb | Self::Sqlite => "NULL",
        }
    }

    /// Gives the statement that opens a transaction of a relay: at READ COMMITTED, or as the only
    /// writer.
    pub(crate) const fn begin(self) -> &'static str {
        match self {
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
            // The session's own level, which `session_setup` sets.
            Self::MySql | Self::MariaDb => "BEGIN",
            Self::Sqlite => "BEGIN IMMEDIATE",
        }
    }

    /// Writes the setup of a relay's session, with its settings.
    pub(crate) fn session_setup(self, settings: &[String]) -> String {
        match self {
            Self::Postgres => settings.iter().map(|s| format!("SET {s}; ")).collect(),
            Self::MySql | Self::MariaDb => mysql::session_setup(settings),
            Self::Sqlite => String::new(),
        }
    }

    /// Writes the statement that creates the view anew.
    pub(crate) const fn create_view(self) -> &'static str {
        match self {
            Self::Sqlite => "CREATE VIEW IF NOT EXISTS",
            _ => "CREATE OR REPLACE VIEW",
        }
    }

    /// Writes the INSERT that reserves dedup keys, where `rows` stand for their values: it returns
    /// the keys that were free, or else (on MySQL and MariaDB) leaves an existing key as it is and
    /// locks it.
    pub(crate) fn reserve_keys(self, rows: &str) -> String {
        let insert = format!(
            "INSERT INTO {{dedup}} (dedup_key, message_id, payload_hash, until) VALUES {rows}"
        );
        if self.is_mysql() {
            return format!(
                "{insert} ON DUPLICATE KEY UPDATE payload_hash = {{dedup}}.payload_hash"
            );
        }
        format!(
            "{insert} ON CONFLICT (dedup_key) DO UPDATE SET message_id = excluded.message_id, payload_hash = \
             excluded.payload_hash, until = excluded.until WHERE {{dedup}}.until < {{now}} \
             RETURNING dedup_key, message_id, payload_hash"
        )
    }

    /// Gives the condition under which a statement sees commits after the transaction's first
    /// statement, where the isolation level decides that. MySQL and MariaDB see them until the
    /// first read without a lock.
    pub(crate) const fn sees_latest_commits(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some("current_setting('transaction_isolation') <> 'repeatable read'"),
            Self::MySql | Self::MariaDb | Self::Sqlite => None,
        }
    }

    /// Writes the INSERT that locks an entity for a saga, unless another one has the lock. Waits
    /// for a transaction that takes or releases the lock at the same time.
    pub(crate) fn lock_entity(self) -> String {
        let (insert, unless_there) = self.insert_if_absent();
        let condition = self.sees_latest_commits().map_or("1 = 1", |condition| condition);
        format!(
            "{insert} {{saga_locks}} (entity, saga_id, locked_at) SELECT ?, ?, {{now}} WHERE {condition}{unless_there}"
        )
    }

    /// Gives the parts of an INSERT, before and after the values, that skip a row whose key exists.
    pub(crate) const fn insert_if_absent(self) -> (&'static str, &'static str) {
        match self {
            Self::MySql | Self::MariaDb => ("INSERT IGNORE INTO", ""),
            _ => ("INSERT INTO", " ON CONFLICT DO NOTHING"),
        }
    }

    /// Writes the end of an INSERT that skips a row whose key exists; unlike
    /// [`insert_if_absent`](Self::insert_if_absent) it ignores no other failure. Takes any column.
    pub(crate) fn or_keep(self, column: &str) -> String {
        if self.is_mysql() {
            format!(" ON DUPLICATE KEY UPDATE {column} = {column}")
        } else {
            " ON CONFLICT DO NOTHING".into()
        }
    }

    /// Writes the end of an INSERT that returns a column, where it can; else see
    /// [`last_id`](Self::last_id).
    pub(crate) fn returning(self, column: &str) -> String {
        if self.is_mysql() { String::new() } else { format!(" RETURNING {column}") }
    }

    /// Tells whether an update and an insert can be one statement.
    pub(crate) const fn changes_and_inserts(self) -> bool {
        matches!(self, Self::Postgres)
    }

    /// Writes an update and an insert as one statement, where the database can; parameters in this
    /// order.
    pub(crate) fn change_and_insert(self, update: &str, insert: &str) -> String {
        format!("WITH changed AS ({update}) {insert}")
    }

    /// Writes the end of an INSERT that replaces these columns of a row whose key exists.
    pub(crate) fn or_replace(self, key: &str, columns: &[&str]) -> String {
        let assign = |value: &dyn Fn(&str) -> String| {
            columns.iter().map(|c| format!("{c} = {}", value(c))).collect::<Vec<_>>().join(", ")
        };
        if self.is_mysql() {
            format!(" ON DUPLICATE KEY UPDATE {}", assign(&|c| format!("VALUES({c})")))
        } else {
            format!(" ON CONFLICT ({key}) DO UPDATE SET {}", assign(&|c| format!("excluded.{c}")))
        }
    }
}

/// Writes `?` as `$1`, `$2` and so on.
fn numbered(sql: &str) -> String {
    let mut pieces = sql.split('?');
    let mut numbered = String::with_capacity(sql.len() + sql.len() / 4);
    numbered.push_str(pieces.next().unwrap_or_default());
    for (n, piece) in (1..).zip(pieces) {
        let n: u32 = n;
        write!(numbered, "${n}").expect("a String takes any text");
        numbered.push_str(piece);
    }
    numbered
}

/// Fills type marks in.
fn typed(body: &str, types: &[(&str, &str)]) -> String {
    types.iter().fold(body.to_owned(), |sql, (mark, name)| sql.replace(mark, name))
}

/// Writes the indexes of a table as statements of their own.
fn create_indexes(
    dialect: Dialect,
    table: &TableDef,
    name_of: &dyn Fn(&str) -> String,
) -> Vec<String> {
    table.indexes.iter().map(|index| create_index(dialect, table.name, index, name_of)).collect()
}

fn create_index(
    dialect: Dialect,
    table: &str,
    index: &IndexDef,
    name_of: &dyn Fn(&str) -> String,
) -> String {
    let unique = if index.unique { "UNIQUE " } else { "" };
    let (name, on) = (dialect.quote(&name_of(index.name)), dialect.quote(&name_of(table)));
    if dialect.is_mysql() {
        return format!(
            "CREATE {unique}INDEX {name} ON {on} ({})",
            index.columns_without_condition
        );
    }
    let condition = index.condition.map(|c| format!(" WHERE {c}")).unwrap_or_default();
    format!("CREATE {unique}INDEX IF NOT EXISTS {name} ON {on} ({}){condition}", index.columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::Namespace;

    #[test]
    fn one_statement_becomes_each_databases_own() {
        let sql = "SELECT a FROM {events} WHERE b = ? AND c < ?{for_share}";
        for (dialect, expected) in [
            (
                Dialect::Postgres,
                "SELECT a FROM \"outbox_events\" WHERE b = $1 AND c < $2 FOR SHARE",
            ),
            (Dialect::MySql, "SELECT a FROM `outbox_events` WHERE b = ? AND c < ? FOR SHARE"),
            (
                Dialect::MariaDb,
                "SELECT a FROM `outbox_events` WHERE b = ? AND c < ? LOCK IN SHARE MODE",
            ),
            (Dialect::Sqlite, "SELECT a FROM \"outbox_events\" WHERE b = ? AND c < ?"),
        ] {
            let tables = Tables::new(dialect, &Namespace::default());
            assert_eq!(&*dialect.sql(&tables, sql), expected);
        }
    }
}
