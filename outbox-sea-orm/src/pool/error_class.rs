//! Classes of database errors: try again, wait for the database, or give up.

pub(crate) use crate::dialect::DbErrorClass;

use crate::dialect::ErrorCode;
use outbox_core::{failure::BoxError, outbox::StoreError};
use sea_orm::{DbErr, RuntimeErr, sqlx};
use std::{io, sync::Arc, time::Duration};

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

/// Gives the class of an error of the driver.
pub(crate) fn classify_driver(error: &sqlx::Error) -> DbErrorClass {
    match error {
        // Also a COMMIT, which may have succeeded all the same. So whoever repeats a transaction has to write
        // in it by what the repeat is known: an inbox row, the end of a claim, a row with a key, a saga's state.
        sqlx::Error::Io(error) if is_response_timeout(error) => DbErrorClass::Busy,
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => DbErrorClass::Unavailable,
        // Without a code: neither server nor connection, but a value, a type, a configuration.
        error => code_of(error).map_or(DbErrorClass::Refused, ErrorCode::class),
    }
}

/// Gives the code of the database, where the error is one of it.
pub(super) fn code_of(error: &sqlx::Error) -> Option<ErrorCode<'_>> {
    ErrorCode::of(error.as_database_error()?)
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
        // A transaction that was idle or open for too long: the server ended this session, and the
        // database works.
        DbErr::Exec(RuntimeErr::SqlxError(e)) | DbErr::Query(RuntimeErr::SqlxError(e))
            if ended_with_transaction(e) =>
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
    code_of_statement(error).is_some_and(ErrorCode::is_denied)
}

/// Tells whether a statement failed since a savepoint is not there, or no transaction is open.
pub(crate) fn is_missing_savepoint(error: &DbErr) -> bool {
    code_of_statement(error).is_some_and(ErrorCode::is_missing_savepoint)
}

/// Gives the code with which the database has refused a statement.
fn code_of_statement(error: &DbErr) -> Option<ErrorCode<'_>> {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => {
            code_of(error)
        }
        _ => None,
    }
}

fn ended_with_transaction(error: &sqlx::Error) -> bool {
    code_of(error).is_some_and(ErrorCode::is_transaction_timeout)
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
    fn a_pool_without_a_free_connection_is_unavailable() {
        assert_eq!(classify_driver(&sqlx::Error::PoolTimedOut), DbErrorClass::Unavailable);
        assert_eq!(
            classify(&DbErr::ConnectionAcquire(sea_orm::error::ConnAcquireErr::Timeout)),
            DbErrorClass::Unavailable
        );
        assert_eq!(classify(&DbErr::Custom("x".into())), DbErrorClass::Refused);
    }

    #[test]
    fn an_error_without_a_code_is_one_of_the_connection_or_of_the_values() {
        assert_eq!(classify_driver(&sqlx::Error::WorkerCrashed), DbErrorClass::Unavailable);
        assert_eq!(classify_driver(&sqlx::Error::RowNotFound), DbErrorClass::Refused);
    }
}
