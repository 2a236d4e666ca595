//! MySQL and MariaDB.

use super::{Dialect, TableDef, TransactionLimits, typed};
use std::time::Duration;

/// Time of the statement, in UTC whatever the session's time zone.
pub(super) const NOW: &str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))";

/// Writes indexes into the table, since there is no `CREATE INDEX IF NOT EXISTS`.
pub(super) fn create_table(
    table: &TableDef,
    name_of: &dyn Fn(&str) -> String,
    collation: &str,
) -> Vec<String> {
    let mut body = typed(
        table.body,
        &[
            ("{ordered_id}", "BIGINT NOT NULL AUTO_INCREMENT"),
            (
                "{ordered_key}",
                ", PRIMARY KEY (partition_no, event_id), KEY outbox_event_id (event_id)",
            ),
            ("{serial}", "BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY"),
            // What stands together in one key has 3,072 bytes at most, four a character.
            ("{word}", "VARCHAR(128)"),
            ("{name}", "VARCHAR(255)"),
            ("{text}", "LONGTEXT"),
            ("{bytes}", "LONGBLOB"),
            ("{uuid}", "BINARY(16)"),
            ("{flag}", "BOOLEAN"),
        ],
    );
    for index in table.indexes {
        let kind = if index.unique { "UNIQUE KEY" } else { "KEY" };
        let columns = index.columns_without_condition;
        body.push_str(&format!(
            ", {kind} {} ({columns})",
            Dialect::MySql.quote(&name_of(index.name))
        ));
    }
    let name = Dialect::MySql.quote(&name_of(table.name));
    // The collation compares bytes and does not ignore spaces at the end, as the other databases do
    // not.
    vec![format!(
        "CREATE TABLE IF NOT EXISTS {name} ({body}) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = {collation}"
    )]
}

/// Writes the query whether an index exists: MySQL has no `CREATE INDEX IF NOT EXISTS`.
pub(super) fn has_index(table: &str, index: &str) -> String {
    format!(
        "SELECT CAST(count(*) AS SIGNED) FROM information_schema.statistics WHERE table_schema = DATABASE() \
         AND table_name = '{table}' AND index_name = '{index}'"
    )
}

/// Writes the query whether a column exists.
pub(super) fn has_column(table: &str, column: &str) -> String {
    format!(
        "SELECT CAST(count(*) AS SIGNED) FROM information_schema.columns WHERE table_schema = DATABASE() \
         AND table_name = '{table}' AND column_name = '{column}'"
    )
}

/// Statements in the binary log are not safe at READ COMMITTED, and the server refuses them at the
/// first write.
pub(super) const UNSUPPORTED_CHECK: (&str, &str) = (
    "SELECT CAST(@@log_bin = 1 AND @@binlog_format = 'STATEMENT' AS SIGNED)",
    "its binlog_format is STATEMENT, which does not go with READ COMMITTED: set it to ROW",
);

/// Timeouts. MySQL has none for an idle transaction; its timeout for idle connections ends them
/// too.
pub(super) fn settings(limit: Duration, mariadb: bool) -> Vec<String> {
    let seconds = limit.as_secs().max(1);
    let mut settings = vec![format!("SESSION innodb_lock_wait_timeout = {seconds}")];
    if mariadb {
        settings.push(format!("SESSION max_statement_time = {}", limit.as_secs_f64()));
        settings.push(format!("SESSION idle_transaction_timeout = {seconds}"));
    } else {
        settings.push(format!("SESSION max_execution_time = {}", limit.as_millis()));
        settings.push(format!("SESSION wait_timeout = {}", seconds.max(2)));
    }
    // An unfinished window may be long; the default of MySQL is 1,024 bytes.
    settings.push("SESSION group_concat_max_len = 67108864".into());
    settings
}

/// Limits of a connection for handlers, steps and operators. MySQL has none for an idle
/// transaction, and one for reads alone. A wait for a change of a table has a limit of its own, a
/// year or a day unless set.
pub(super) fn limits(limits: &TransactionLimits, mariadb: bool) -> Vec<(&'static str, String)> {
    let lock_wait = limits.lock_wait.as_secs().to_string();
    let mut settings =
        vec![("innodb_lock_wait_timeout", lock_wait.clone()), ("lock_wait_timeout", lock_wait)];
    if mariadb {
        settings.push(("max_statement_time", limits.statement.as_secs().to_string()));
        settings.push(("idle_transaction_timeout", limits.idle.as_secs().to_string()));
    } else {
        settings.push(("max_execution_time", limits.statement.as_millis().to_string()));
    }
    settings
}

/// Seconds that a program waits for another one that migrates: a migration takes moments, even on a
/// slow disk.
const LOCK_SECONDS: u32 = 60;

/// Locks the name of an installation, and releases it.
pub(super) fn install_lock_of_session(name: &str) -> (String, String) {
    (format!("SELECT GET_LOCK('{name}', {LOCK_SECONDS})"), format!("SELECT RELEASE_LOCK('{name}')"))
}

/// Sets the level of every transaction to come, and the settings.
pub(super) fn session_setup(settings: &[String]) -> String {
    format!("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET {}", settings.join(", "))
}
