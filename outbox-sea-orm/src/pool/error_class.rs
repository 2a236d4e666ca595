//! Classes of database errors: try again, wait for the database, or give up.

use outbox_core::{failure::BoxError, outbox::StoreError};
use sea_orm::{DbErr, RuntimeErr, sqlx};
use std::{io, sync::Arc, time::Duration};

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

/// The client's own deadline has passed without a response.
#[derive(Debug, thiserror::Error)]
#[error("{what} gave no response within {within:?}, and is given up")]
struct ResponseTimeout {
    what: &'static str,
    within: Duration,
}

/// Makes the error of a missing response, as one of the driver.
pub(crate) fn response_timeout(what: &'static str, within: Duration) -> DbErr {
    let error = io::Error::new(io::ErrorKind::TimedOut, ResponseTimeout { what, within });
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(sqlx::Error::Io(error))))
}

fn is_response_timeout(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<ResponseTimeout>())
}

/// The part of a driver's error that decides the class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code<'a> {
    /// No response of the server.
    NoResponse,
    /// PostgreSQL's SQLSTATE.
    Postgres(&'a str),
    /// MySQL's number.
    MySql(u16),
    /// SQLite's extended result code, and its text.
    Sqlite(i32, &'a str),
    /// Neither server nor connection: a value, a type, a configuration.
    Other,
}

/// Gives the class of an error.
///
/// # Source
/// PostgreSQL manual, appendix A; MySQL and MariaDB error references; SQLite result codes.
fn classify_code(code: Code<'_>) -> DbErrorClass {
    match code {
        Code::NoResponse => DbErrorClass::Unavailable,
        Code::Other => DbErrorClass::Refused,
        Code::Postgres(state) => match state {
            // Statement timeout, lock timeout.
            "57014" | "55P03" => DbErrorClass::Busy,
            // Shut down, crashed, not yet up, idle too long, in a transaction or not; a server that
            // became a replica.
            "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25006" => DbErrorClass::Unavailable,
            "42P01" => DbErrorClass::Missing,
            _ if state.starts_with("40") => DbErrorClass::Busy,
            // Connection exceptions; out of connections, memory or disk.
            _ if state.starts_with("08") || state.starts_with("53") => DbErrorClass::Unavailable,
            // Data exceptions, constraints, a trigger's refusal, more than the server can hold in a
            // row or an index.
            _ if ["22", "23", "54", "P0"].iter().any(|class| state.starts_with(class)) => {
                DbErrorClass::Refused
            }
            _ => DbErrorClass::Unusable,
        },
        Code::MySql(number) => match number {
            // Lock wait timeout, no memory for locks, deadlock, record changed since read,
            // interrupted, statement timeouts, too many transactions at once, another member of a
            // group was faster.
            1205 | 1206 | 1213 | 1020 | 1317 | 1637 | 1969 | 3024 | 3101 | 3572 => {
                DbErrorClass::Busy
            }
            // Out of connections, memory or disk, shut down, killed, aborted, idle too long,
            // read-only after a failover, a node of a cluster or a member of a group that is cut
            // off from the others.
            1021
            | 1037
            | 1040
            | 1041
            | 1047
            | 1053
            | 1077
            | 1079
            | 1152
            | 1154..=1161
            | 1184
            | 1203
            | 1226
            | 1290
            | 1836
            | 1927
            | 2000..=2061
            | 3100
            | 3168
            | 4031 => DbErrorClass::Unavailable,
            1146 => DbErrorClass::Missing,
            // NULL, a duplicate, a row or packet too large, out of range, not of the type or
            // character set, too long, a foreign key, a trigger's refusal, a CHECK.
            1048 | 1062 | 1118 | 1153 | 1264 | 1292 | 1300 | 1366 | 1406 | 1451 | 1452 | 1644
            | 3140 | 3819 | 4025 => DbErrorClass::Refused,
            _ => DbErrorClass::Unusable,
        },
        Code::Sqlite(code, text) => match code & 0xff {
            // Busy, locked, and a protocol of locks that took too long.
            5 | 6 | 15 => DbErrorClass::Busy,
            // Disk error, disk full, cannot open.
            10 | 13 | 14 => DbErrorClass::Unavailable,
            1 if text.starts_with("no such table") => DbErrorClass::Missing,
            // Too big, a constraint, a type that does not fit.
            18..=20 => DbErrorClass::Refused,
            _ => DbErrorClass::Unusable,
        },
    }
}

/// Gives the class of an error of the driver.
pub(crate) fn classify_driver(error: &sqlx::Error) -> DbErrorClass {
    let code = match error {
        sqlx::Error::Io(error) if is_response_timeout(error) => return DbErrorClass::Busy,
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => Code::NoResponse,
        sqlx::Error::Database(error) => return classify_server(error.as_ref()),
        _ => Code::Other,
    };
    classify_code(code)
}

fn classify_server(error: &(dyn sqlx::error::DatabaseError + 'static)) -> DbErrorClass {
    #[cfg(feature = "sqlx-mysql")]
    if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return classify_code(Code::MySql(error.number()));
    }
    #[cfg(feature = "sqlx-postgres")]
    if let Some(error) = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        return classify_code(Code::Postgres(error.code()));
    }
    let code = error.code();
    match code.as_deref().and_then(|c| c.parse().ok()) {
        Some(code) => classify_code(Code::Sqlite(code, error.message())),
        None => classify_code(Code::Other),
    }
}

/// Gives the class of an error of SeaORM.
pub(crate) fn classify(error: &DbErr) -> DbErrorClass {
    match error {
        DbErr::ConnectionAcquire(_) => DbErrorClass::Unavailable,
        DbErr::Conn(RuntimeErr::SqlxError(e)) => match classify_driver(e) {
            // A connection that is refused for another reason than its configuration may open
            // later.
            DbErrorClass::Refused | DbErrorClass::Unusable
                if !matches!(**e, sqlx::Error::Configuration(_)) =>
            {
                DbErrorClass::Unavailable
            }
            class => class,
        },
        // Idle for too long inside a transaction: the server ended this session, and the database
        // works.
        DbErr::Exec(RuntimeErr::SqlxError(e)) | DbErr::Query(RuntimeErr::SqlxError(e))
            if ended_idle(e) =>
        {
            DbErrorClass::Busy
        }
        DbErr::Exec(RuntimeErr::SqlxError(e)) | DbErr::Query(RuntimeErr::SqlxError(e)) => {
            classify_driver(e)
        }
        _ => DbErrorClass::Refused,
    }
}

/// Tells whether the database refuses a statement because the role lacks a right or the connection
/// is read-only.
pub(crate) fn is_denied(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) =
        error
    else {
        return false;
    };
    let Some(error) = error.as_database_error() else { return false };
    #[cfg(feature = "sqlx-mysql")]
    if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        // Of a database, a table, a column, an administrator.
        return matches!(error.number(), 1044 | 1142 | 1143 | 1227);
    }
    #[cfg(feature = "sqlx-sqlite")]
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        // SQLITE_READONLY, with what extends it.
        return error
            .code()
            .and_then(|code| code.parse::<u32>().ok())
            .is_some_and(|code| code & 0xff == 8);
    }
    error.code().is_some_and(|code| code == "42501")
}

fn ended_idle(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "25P03")
}

/// Makes the store's error of a class.
fn to_store_error(class: DbErrorClass, error: impl Into<BoxError>) -> StoreError {
    match class {
        DbErrorClass::Busy => StoreError::Busy(error.into()),
        DbErrorClass::Unavailable => StoreError::Unavailable(error.into()),
        DbErrorClass::Missing => StoreError::Mismatch(format!(
            "a table is missing: run the migration ({})",
            error.into()
        )),
        DbErrorClass::Refused => StoreError::Refused(error.into()),
        DbErrorClass::Unusable => StoreError::Unusable(error.into()),
    }
}

/// Turns SeaORM's error into the store's.
pub(crate) fn store_error(error: DbErr) -> StoreError {
    to_store_error(classify(&error), error)
}

/// Turns the driver's error into the store's.
pub(crate) fn driver_error(error: sqlx::Error) -> StoreError {
    to_store_error(classify_driver(&error), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_its_class() {
        use DbErrorClass::{Busy, Missing, Refused, Unavailable, Unusable};
        for (code, expected) in [
            (Code::Postgres("40001"), Busy),
            (Code::Postgres("40P01"), Busy),
            (Code::Postgres("55P03"), Busy),
            (Code::Postgres("57014"), Busy),
            (Code::Postgres("57P01"), Unavailable),
            (Code::Postgres("57P02"), Unavailable),
            (Code::Postgres("57P03"), Unavailable),
            (Code::Postgres("25P03"), Unavailable),
            (Code::Postgres("08006"), Unavailable),
            (Code::Postgres("53300"), Unavailable),
            (Code::Postgres("25006"), Unavailable),
            (Code::Postgres("42P01"), Missing),
            (Code::Postgres("23505"), Refused),
            (Code::Postgres("22021"), Refused),
            (Code::Postgres("54000"), Refused),
            (Code::Postgres("P0001"), Refused),
            (Code::Postgres("42601"), Unusable),
            (Code::Postgres("42501"), Unusable),
            (Code::Postgres("26000"), Unusable),
            (Code::Postgres("XX001"), Unusable),
            (Code::MySql(1213), Busy),
            (Code::MySql(1205), Busy),
            (Code::MySql(1020), Busy),
            (Code::MySql(1206), Busy),
            (Code::MySql(3101), Busy),
            (Code::MySql(3100), Unavailable),
            (Code::MySql(1047), Unavailable),
            (Code::MySql(1969), Busy),
            (Code::MySql(3024), Busy),
            (Code::MySql(1053), Unavailable),
            (Code::MySql(1927), Unavailable),
            (Code::MySql(1040), Unavailable),
            (Code::MySql(1146), Missing),
            (Code::MySql(1062), Refused),
            (Code::MySql(1153), Refused),
            (Code::MySql(1406), Refused),
            (Code::MySql(1142), Unusable),
            (Code::MySql(1114), Unusable),
            (Code::Sqlite(5, "database is locked"), Busy),
            (Code::Sqlite(517, "database is locked"), Busy),
            (Code::Sqlite(262, "database table is locked"), Busy),
            (Code::Sqlite(14, "unable to open database file"), Unavailable),
            (Code::Sqlite(1, "no such table: outbox_meta"), Missing),
            (Code::Sqlite(1, "near \"x\": syntax error"), Unusable),
            (Code::Sqlite(8, "attempt to write a readonly database"), Unusable),
            (Code::Sqlite(2067, "UNIQUE constraint failed"), Refused),
            (Code::NoResponse, Unavailable),
            (Code::Other, Refused),
        ] {
            assert_eq!(classify_code(code), expected, "{code:?}");
        }
    }

    #[test]
    fn a_pool_without_a_free_connection_is_unavailable() {
        assert_eq!(classify_driver(&sqlx::Error::PoolTimedOut), DbErrorClass::Unavailable);
        assert_eq!(
            classify(&DbErr::ConnectionAcquire(sea_orm::error::ConnAcquireErr::Timeout)),
            DbErrorClass::Unavailable
        );
        assert_eq!(classify(&DbErr::Custom("x".into())), DbErrorClass::Refused);
    }
}
