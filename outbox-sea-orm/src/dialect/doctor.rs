//! What a database tells about itself and about the role of a connection.

use super::Dialect;

/// A setting of the server under which a crash loses what was committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DurabilitySetting {
    /// Its name.
    pub(crate) name: &'static str,
    /// The query that reads it, a text or a number.
    pub(crate) sql: &'static str,
    /// The values under which nothing is lost.
    pub(crate) safe: &'static [&'static str],
    /// What is lost under any other one.
    pub(crate) loses: &'static str,
}

const fn setting(
    name: &'static str,
    sql: &'static str,
    safe: &'static [&'static str],
    loses: &'static str,
) -> DurabilitySetting {
    DurabilitySetting { name, sql, safe, loses }
}

const POSTGRES: &[DurabilitySetting] = &[
    setting(
        "fsync",
        "SELECT current_setting('fsync')",
        &["on"],
        "a crash of the machine may damage the whole database",
    ),
    setting(
        "full_page_writes",
        "SELECT current_setting('full_page_writes')",
        &["on"],
        "a crash of the machine may damage pages that were being written",
    ),
    setting(
        "synchronous_commit",
        "SELECT current_setting('synchronous_commit')",
        &["on", "local", "remote_write", "remote_apply"],
        "a crash of the server loses its last commits",
    ),
];

/// The value 3 of MariaDB flushes at each commit too.
const MYSQL: &[DurabilitySetting] = &[
    setting(
        "innodb_flush_log_at_trx_commit",
        "SELECT CAST(@@GLOBAL.innodb_flush_log_at_trx_commit AS CHAR)",
        &["1", "3"],
        "a crash loses the commits of the last second",
    ),
    setting(
        "sync_binlog",
        "SELECT CASE WHEN @@GLOBAL.log_bin = 0 THEN '1' ELSE CAST(@@GLOBAL.sync_binlog AS CHAR) END",
        &["1"],
        "a crash of the machine may lose commits from the binary log, and so on replicas",
    ),
    setting(
        "innodb_doublewrite",
        "SELECT CAST(@@GLOBAL.innodb_doublewrite AS CHAR)",
        &["1", "ON", "DETECT_AND_RECOVER"],
        "a crash of the machine may damage pages that were being written",
    ),
];

const SQLITE: &[DurabilitySetting] = &[
    setting(
        "synchronous",
        "PRAGMA synchronous",
        &["2", "3"],
        "a crash of the machine loses the last commits (1, NORMAL), or damages the file (0, OFF)",
    ),
    setting(
        "journal_mode",
        "PRAGMA journal_mode",
        &["wal", "delete", "truncate", "persist"],
        "a crash in the middle of a transaction damages the file",
    ),
];

impl Dialect {
    /// Lists the settings under which a crash loses what was committed.
    pub(crate) const fn durability(self) -> &'static [DurabilitySetting] {
        match self {
            Self::Postgres => POSTGRES,
            Self::MySql | Self::MariaDb => MYSQL,
            Self::Sqlite => SQLITE,
        }
    }

    /// Gives the query for the oldest open transaction of other connections: its age in seconds,
    /// and whose it is.
    pub(crate) const fn oldest_transaction(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some(
                "SELECT t.age, t.who FROM (SELECT extract(epoch FROM statement_timestamp() - a.xact_start)::bigint AS age, \
                 'process ' || a.pid || ' (' || COALESCE(NULLIF(a.application_name, ''), 'without a name') || ', ' || \
                 COALESCE(a.state, 'in an unknown state') || ')' AS who FROM pg_stat_activity a \
                 WHERE a.datname = current_database() AND a.xact_start IS NOT NULL AND a.pid <> pg_backend_pid() \
                 UNION ALL SELECT extract(epoch FROM statement_timestamp() - x.prepared)::bigint, \
                 'the prepared transaction ' || x.gid FROM pg_prepared_xacts x WHERE x.database = current_database()) t \
                 ORDER BY t.age DESC LIMIT 1",
            ),
            // Instants of transactions are in the system's time zone.
            Self::MySql | Self::MariaDb => Some(
                "SELECT CAST(TIMESTAMPDIFF(SECOND, t.trx_started, CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', 'SYSTEM')) AS SIGNED), \
                 CONCAT('thread ', t.trx_mysql_thread_id, ' (', t.trx_state, ')') FROM information_schema.innodb_trx t \
                 WHERE t.trx_mysql_thread_id <> CONNECTION_ID() ORDER BY t.trx_started LIMIT 1",
            ),
            Self::Sqlite => None,
        }
    }

    /// Gives the query for the isolation at which the transactions of a connection begin unless
    /// they say otherwise, and for the longest wait for a lock, in seconds; nothing where no
    /// isolation makes those that save events wait for each other.
    pub(crate) const fn default_isolation(self) -> Option<&'static str> {
        match self {
            Self::MySql => Some(
                "SELECT CAST(@@transaction_isolation AS CHAR), CAST(@@innodb_lock_wait_timeout AS SIGNED)",
            ),
            // It has the other name from 11.1 on, beside this one.
            Self::MariaDb => Some(
                "SELECT CAST(@@tx_isolation AS CHAR), CAST(@@innodb_lock_wait_timeout AS SIGNED)",
            ),
            Self::Postgres | Self::Sqlite => None,
        }
    }

    /// Tells whether a transaction at this isolation may lock the gap beside a row that it wrote.
    ///
    /// # Source
    /// Seen with MariaDB 10.11 in `information_schema.innodb_locks`: at REPEATABLE READ a transaction
    /// that had saved one event had `X,GAP` before its row once rows beside it were purged.
    pub(crate) fn isolation_locks_gaps(level: &str) -> bool {
        !matches!(level, "READ-COMMITTED" | "READ-UNCOMMITTED")
    }

    /// Tells what an old transaction keeps from being cleaned up.
    pub(crate) const fn pinned_by_transactions(self) -> &'static str {
        match self {
            Self::Postgres => {
                "vacuum removes no row that was deleted since, and every read walks over these"
            }
            Self::MySql | Self::MariaDb => {
                "purge removes no row that was deleted since, and the undo log grows"
            }
            Self::Sqlite => "the write-ahead log is not reset, and grows",
        }
    }

    /// Gives the query for dead and live rows of a table, the options of its autovacuum, and
    /// whether autovacuum is on; takes the table's quoted name.
    pub(crate) const fn dead_rows(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some(
                "SELECT s.n_dead_tup, s.n_live_tup, COALESCE(array_to_string(c.reloptions, ', '), ''), \
                 current_setting('autovacuum') FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid \
                 WHERE c.oid = to_regclass(?)",
            ),
            Self::MySql | Self::MariaDb | Self::Sqlite => None,
        }
    }

    /// Gives the option of a table that the migration sets, so that its rows are cleaned up by count.
    pub(crate) const fn vacuum_option(self) -> &'static str {
        match self {
            Self::Postgres => "autovacuum_vacuum_scale_factor=0",
            Self::MySql | Self::MariaDb | Self::Sqlite => "",
        }
    }

    /// Gives the query for the rights that the role has on a table, one a row; takes the table's
    /// name, and gives nothing where the database does not tell.
    pub(crate) const fn rights_on_table(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some(
                "SELECT p.name FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(name) \
                 WHERE has_table_privilege(to_regclass(?), p.name)",
            ),
            // Rights that a role grants are not in these tables.
            Self::MySql | Self::MariaDb => Some(
                "SELECT r.name FROM (SELECT grantee, privilege_type AS name FROM information_schema.user_privileges \
                 UNION SELECT grantee, privilege_type FROM information_schema.schema_privileges \
                 WHERE DATABASE() LIKE table_schema UNION SELECT grantee, privilege_type \
                 FROM information_schema.table_privileges WHERE table_schema = DATABASE() AND table_name = ?) r \
                 WHERE r.grantee = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''') \
                 AND COALESCE(CURRENT_ROLE(), 'NONE') = 'NONE'",
            ),
            Self::Sqlite => None,
        }
    }

    /// Gives a table's name as [`rights_on_table`](Self::rights_on_table) takes it.
    pub(crate) fn table_name(self, quoted: &str) -> String {
        if self.is_mysql() { quoted.trim_matches('`').to_owned() } else { quoted.to_owned() }
    }
}
