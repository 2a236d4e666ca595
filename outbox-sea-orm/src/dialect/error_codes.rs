//! The databases' error codes: what each means to the caller and to the transaction of its
//! statement.
//!
//! # Source
//! PostgreSQL manual, appendix A; MySQL and MariaDB error references, "InnoDB Error Handling" in
//! MySQL's manual, and `convert_error_code_to_mysql` of InnoDB for 1206; SQLite's result codes, and
//! "Transaction", section 3.1, sqlite.org/lang_transaction.html.

use DbErrorClass::{Busy, Missing, Refused, Unavailable, Unusable};
use TxEffect::{Conflict, Lost, RolledBack, Statement};
#[cfg(feature = "sqlx-mysql")]
use sea_orm::sqlx::mysql::MySqlDatabaseError;
#[cfg(feature = "sqlx-postgres")]
use sea_orm::sqlx::postgres::PgDatabaseError;
use sea_orm::{DbErr, RuntimeErr, SqlxError, sqlx::error::DatabaseError};

/// The class of a database error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DbErrorClass {
    /// Other transactions were in the way; the statement did nothing, and the whole transaction may
    /// be repeated.
    Busy,
    /// The connection or the server is lost; whether the statement ran is unknown.
    Unavailable,
    /// A table is missing.
    Missing,
    /// The values do not fit.
    Refused,
    /// Any other error: the server does not work as needed.
    Unusable,
}

/// The effect of a database error on its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TxEffect {
    /// The statement alone failed. (PostgreSQL refuses the next ones by itself.)
    Statement,
    /// The statement alone failed, because of other transactions; a repeat needs the whole
    /// transaction.
    Busy,
    /// The database rolled the transaction back because of another one: repeating may help.
    Conflict,
    /// The database rolled the transaction back for its own reasons.
    RolledBack,
    /// The connection is lost, and the transaction with it.
    Lost,
}

impl TxEffect {
    /// Tells whether the transaction is gone.
    pub(crate) const fn ends_transaction(self) -> bool {
        matches!(self, Self::Conflict | Self::RolledBack | Self::Lost)
    }

    /// Derives it from SeaORM's error.
    pub(crate) fn of(error: &DbErr) -> Self {
        match error {
            DbErr::ConnectionAcquire(_) => Self::Lost,
            DbErr::Conn(RuntimeErr::SqlxError(e))
            | DbErr::Exec(RuntimeErr::SqlxError(e))
            | DbErr::Query(RuntimeErr::SqlxError(e)) => Self::of_sqlx(e),
            DbErr::Conn(_) => Self::Lost,
            _ => Self::Statement,
        }
    }

    fn of_sqlx(error: &SqlxError) -> Self {
        match error {
            SqlxError::Database(e) => {
                ErrorCode::of(e.as_ref()).map_or(Self::Statement, ErrorCode::effect)
            }
            SqlxError::Io(_)
            | SqlxError::Tls(_)
            | SqlxError::Protocol(_)
            | SqlxError::PoolTimedOut
            | SqlxError::PoolClosed
            | SqlxError::WorkerCrashed => Self::Lost,
            _ => Self::Statement,
        }
    }
}

/// An error code, as the driver gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCode<'a> {
    /// PostgreSQL's SQLSTATE.
    Postgres(&'a str),
    /// The number of MySQL and MariaDB.
    MySql(u16),
    /// SQLite's extended result code, and its text.
    Sqlite(i32, &'a str),
}

impl<'a> ErrorCode<'a> {
    /// Reads the code of a database's error; nothing where it has none.
    pub(crate) fn of(error: &'a (dyn DatabaseError + 'static)) -> Option<Self> {
        #[cfg(feature = "sqlx-mysql")]
        if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
            return Some(Self::MySql(error.number()));
        }
        #[cfg(feature = "sqlx-postgres")]
        if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
            return Some(Self::Postgres(error.code()));
        }
        let code = error.code()?.parse().ok()?;
        Some(Self::Sqlite(code, error.message()))
    }

    /// Gives its class.
    pub(crate) fn class(self) -> DbErrorClass {
        self.meaning().0
    }

    /// Gives its effect on the transaction.
    pub(crate) fn effect(self) -> TxEffect {
        self.meaning().1
    }

    /// Tells whether the role lacks a right, or the connection is read-only.
    pub(crate) fn is_denied(self) -> bool {
        match self {
            Self::Postgres(state) => state == "42501",
            // Of a database, a table, a column, an administrator.
            Self::MySql(number) => matches!(number, 1044 | 1142 | 1143 | 1227),
            // SQLITE_READONLY, with what extends it.
            Self::Sqlite(code, _) => code & 0xff == 8,
        }
    }

    /// Tells whether the server ended the session, since its transaction was idle for too long
    /// (idle_in_transaction_session_timeout) or open for too long (transaction_timeout, since
    /// PostgreSQL 17).
    pub(crate) fn is_transaction_timeout(self) -> bool {
        matches!(self, Self::Postgres("25P03" | "25P04"))
    }

    /// Tells whether the name of a prepared statement is taken (duplicate_prepared_statement) or
    /// unknown (invalid_sql_statement_name), as where a pooler has mixed up two clients.
    pub(crate) fn is_mixed_statement(self) -> bool {
        matches!(self, Self::Postgres("42P05" | "26000"))
    }

    /// Tells whether the transaction has no savepoint of this name, or there is no transaction.
    pub(crate) fn is_missing_savepoint(self) -> bool {
        match self {
            Self::Postgres(state) => matches!(state, "3B001" | "25P01"),
            Self::MySql(number) => number == 1305,
            Self::Sqlite(_, text) => text.starts_with("no such savepoint"),
        }
    }

    fn meaning(self) -> (DbErrorClass, TxEffect) {
        match self {
            Self::Postgres(state) => of_postgres(state),
            Self::MySql(number) => of_mysql(number),
            Self::Sqlite(code, text) => of_sqlite(code, text),
        }
    }
}

fn of_postgres(state: &str) -> (DbErrorClass, TxEffect) {
    match state {
        // Lock timeout.
        "55P03" => (Busy, TxEffect::Busy),
        // Cancelled by a statement timeout or by an operator: the connection stays.
        "57014" => (Busy, Statement),
        // Shut down, crashed, not yet up, idle too long, in a transaction or not, a transaction that
        // was open too long.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" => (Unavailable, Lost),
        // A server that became a replica.
        "25006" => (Unavailable, Statement),
        "42P01" => (Missing, Statement),
        // Whether the statement ran is unknown.
        "40003" => (Busy, Lost),
        _ => match state.get(..2).unwrap_or_default() {
            // A rollback of the whole transaction.
            "40" => (Busy, Conflict),
            // Connection exceptions.
            "08" => (Unavailable, Lost),
            // Out of connections, memory or disk.
            "53" => (Unavailable, Statement),
            // Data exceptions, constraints, a trigger's refusal, more than the server can hold in a
            // row or an index.
            "22" | "23" | "54" | "P0" => (Refused, Statement),
            // The end of the connection, such as by a database that was dropped.
            "57" if state.starts_with("57P") => (Unusable, Lost),
            _ => (Unusable, Statement),
        },
    }
}

const fn of_mysql(number: u16) -> (DbErrorClass, TxEffect) {
    match number {
        // Record changed since read, lock wait timeout, no memory for locks, deadlock, another
        // member of a group was faster: each rolls the transaction back. After a lock wait timeout
        // a server variable decides whether it ends the transaction or the statement alone, so it
        // counts as the former.
        1020 | 1205 | 1206 | 1213 | 3101 => (Busy, Conflict),
        // Interrupted, statement timeouts, too many transactions at once.
        1317 | 1637 | 1969 | 3024 | 3572 => (Busy, Statement),
        // Shut down, killed, aborted, gone away.
        1053 | 1077 | 1079 | 1152 | 1184 | 1927 | 2006 | 2013 => (Unavailable, Lost),
        // A member that could not reach its group.
        3100 => (Unavailable, RolledBack),
        // A COMMIT or a ROLLBACK that failed.
        1180 | 1181 => (Unusable, RolledBack),
        // Out of connections, memory or disk, aborted, idle too long, read-only after a failover, a
        // node of a cluster that is cut off from the others.
        1021
        | 1037
        | 1040
        | 1041
        | 1047
        | 1154..=1161
        | 1203
        | 1226
        | 1290
        | 1836
        | 2000..=2061
        | 3168
        | 4031 => (Unavailable, Statement),
        1146 => (Missing, Statement),
        // NULL, a duplicate, a row or packet too large, out of range, not of the type or character
        // set, too long, a foreign key, a trigger's refusal, a CHECK.
        1048 | 1062 | 1118 | 1153 | 1264 | 1292 | 1300 | 1366 | 1406 | 1451 | 1452 | 1644
        | 3140 | 3819 | 4025 => (Refused, Statement),
        _ => (Unusable, Statement),
    }
}

fn of_sqlite(code: i32, text: &str) -> (DbErrorClass, TxEffect) {
    match (code, code & 0xff) {
        // A read snapshot that can never become a write: only a new transaction helps.
        (517, _) => (Busy, Conflict),
        // Busy and locked, because of other writers.
        (_, 5 | 6) => (Busy, TxEffect::Busy),
        // A protocol of locks that took too long.
        (_, 15) => (Busy, Statement),
        // Disk error, disk full: each may have rolled the transaction back.
        (_, 10 | 13) => (Unavailable, RolledBack),
        // Cannot open.
        (_, 14) => (Unavailable, Statement),
        // Out of memory, interrupted, corrupt: each may have rolled the transaction back.
        (_, 7 | 9 | 11) => (Unusable, RolledBack),
        (_, 1) if text.starts_with("no such table") => (Missing, Statement),
        // Too big, a constraint, a type that does not fit.
        (_, 18..=20) => (Refused, Statement),
        _ => (Unusable, Statement),
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorCode::*, *};

    #[test]
    fn every_kind_of_error_has_its_class() {
        for (code, expected) in [
            (Postgres("40001"), Busy),
            (Postgres("40P01"), Busy),
            (Postgres("55P03"), Busy),
            (Postgres("57014"), Busy),
            (Postgres("57P01"), Unavailable),
            (Postgres("57P02"), Unavailable),
            (Postgres("57P03"), Unavailable),
            (Postgres("25P03"), Unavailable),
            (Postgres("25P04"), Unavailable),
            (Postgres("08006"), Unavailable),
            (Postgres("53300"), Unavailable),
            (Postgres("25006"), Unavailable),
            (Postgres("42P01"), Missing),
            (Postgres("23505"), Refused),
            (Postgres("23001"), Refused),
            (Postgres("22021"), Refused),
            (Postgres("54000"), Refused),
            (Postgres("P0001"), Refused),
            (Postgres("42601"), Unusable),
            (Postgres("42501"), Unusable),
            (Postgres("26000"), Unusable),
            (Postgres("XX001"), Unusable),
            (MySql(1213), Busy),
            (MySql(1205), Busy),
            (MySql(1020), Busy),
            (MySql(1206), Busy),
            (MySql(3101), Busy),
            (MySql(3100), Unavailable),
            (MySql(1047), Unavailable),
            (MySql(1969), Busy),
            (MySql(3024), Busy),
            (MySql(1053), Unavailable),
            (MySql(1927), Unavailable),
            (MySql(1040), Unavailable),
            (MySql(1146), Missing),
            (MySql(1062), Refused),
            (MySql(1153), Refused),
            (MySql(1406), Refused),
            (MySql(1142), Unusable),
            (MySql(1114), Unusable),
            (Sqlite(5, "database is locked"), Busy),
            (Sqlite(517, "database is locked"), Busy),
            (Sqlite(262, "database table is locked"), Busy),
            (Sqlite(14, "unable to open database file"), Unavailable),
            (Sqlite(1, "no such table: outbox_meta"), Missing),
            (Sqlite(1, "near \"x\": syntax error"), Unusable),
            (Sqlite(8, "attempt to write a readonly database"), Unusable),
            (Sqlite(2067, "UNIQUE constraint failed"), Refused),
        ] {
            assert_eq!(code.class(), expected, "{code:?}");
        }
    }

    #[test]
    fn a_session_that_ended_with_its_transaction_is_told_from_one_of_a_server_that_ends() {
        for (state, expected) in
            [("25P03", true), ("25P04", true), ("57P05", false), ("57P01", false), ("57014", false)]
        {
            assert_eq!(Postgres(state).is_transaction_timeout(), expected, "{state}");
        }
    }

    #[test]
    fn a_missing_savepoint_is_told_from_a_failed_transaction() {
        for (code, is_missing) in [
            (Postgres("3B001"), true),
            (Postgres("25P01"), true),
            (Postgres("25P02"), false),
            (MySql(1305), true),
            (MySql(1213), false),
            (Sqlite(1, "no such savepoint: outbox_trial"), true),
            (Sqlite(1, "no such table: outbox_meta"), false),
        ] {
            assert_eq!(code.is_missing_savepoint(), is_missing, "{code:?}");
        }
    }

    #[test]
    fn class_40_ends_the_transaction_and_a_constraint_does_not() {
        for (code, effect) in [
            ("40001", TxEffect::Conflict),
            ("40P01", TxEffect::Conflict),
            ("40003", TxEffect::Lost),
            ("57P01", TxEffect::Lost),
            ("57014", TxEffect::Statement),
            ("08006", TxEffect::Lost),
            ("55P03", TxEffect::Busy),
            ("25P03", TxEffect::Lost),
            ("25P04", TxEffect::Lost),
            ("23505", TxEffect::Statement),
            ("", TxEffect::Statement),
        ] {
            assert_eq!(Postgres(code).effect(), effect, "{code}");
        }
    }

    #[test]
    fn a_full_disk_ends_the_transaction_and_a_busy_database_does_not() {
        for (code, effect) in [
            (5, TxEffect::Busy),
            (517, TxEffect::Conflict),
            (13, TxEffect::RolledBack),
            (778, TxEffect::RolledBack),
            (2067, TxEffect::Statement),
        ] {
            assert_eq!(Sqlite(code, "").effect(), effect, "{code}");
        }
    }

    #[test]
    fn what_innodb_or_a_group_rolls_back_ends_the_transaction_and_may_be_repeated() {
        for (number, effect) in [
            (1020, TxEffect::Conflict),
            (1205, TxEffect::Conflict),
            (1206, TxEffect::Conflict),
            (1213, TxEffect::Conflict),
            (3101, TxEffect::Conflict),
            (3100, TxEffect::RolledBack),
            (1180, TxEffect::RolledBack),
            (1927, TxEffect::Lost),
            (1062, TxEffect::Statement),
            (1406, TxEffect::Statement),
        ] {
            assert_eq!(MySql(number).effect(), effect, "{number}");
        }
    }
}
