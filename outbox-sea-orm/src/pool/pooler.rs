//! A pooler between the program and PostgreSQL, which gives a connection of the server to another
//! client after each transaction.
//!
//! The driver prepares each statement once for a connection, under a name (`sqlx_s_1`), and so does
//! SeaORM, whatever it is told. A pooler that does not carry these names over lets one client's
//! statement fail with another's, or run it. PgBouncer carries them since 1.21, where
//! `max_prepared_statements` is set.

use super::error_class::code_of;
use crate::dialect::ErrorCode;
use sea_orm::{DatabaseConnection, DbErr, RuntimeErr, sqlx};

/// The error where a prepared statement is missing, or is another client's.
pub(crate) const POOLER_REQUIREMENT: &str = "a pooler stands before PostgreSQL that does not keep each client's prepared statements apart, \
    which the driver needs: use PgBouncer 1.21 or later with `max_prepared_statements` above 0 and say `behind_pooler()`, or \
    `pool_mode = session`, or connect to the server directly";

/// Tells whether an error, or one of its sources, comes from a pooler that has mixed up prepared
/// statements.
pub(crate) fn is_mixed_statement_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let of_driver = match error.downcast_ref::<DbErr>() {
            Some(
                DbErr::Exec(RuntimeErr::SqlxError(error))
                | DbErr::Query(RuntimeErr::SqlxError(error))
                | DbErr::Conn(RuntimeErr::SqlxError(error)),
            ) => Some(&**error),
            _ => error.downcast_ref::<sqlx::Error>(),
        };
        if of_driver.is_some_and(is_mixed_statement) {
            return true;
        }
        next = error.source();
    }
    false
}

fn is_mixed_statement(error: &sqlx::Error) -> bool {
    code_of(error).is_some_and(ErrorCode::is_mixed_statement)
}

/// Checks that prepared statements of two clients stay apart where a pooler lets them share one
/// connection of the server.
///
/// # Errors
/// [`POOLER_REQUIREMENT`] where they do not. A check that cannot connect passes: the next statement
/// will fail.
#[cfg(feature = "sqlx-postgres")]
pub(crate) async fn check(db: &DatabaseConnection) -> Result<(), &'static str> {
    use crate::dialect::postgres_options;
    use sea_orm::sqlx::Connection;

    /// Both clients in turn, more often than a pooler needs to give one of them the other's
    /// connection.
    const TURNS: usize = 4;
    let Some(options) = postgres_options(db) else { return Ok(()) };
    let mut clients = Vec::new();
    // Both have the same name for their first statement.
    for (sql, number) in [("SELECT 1", 1), ("SELECT 2", 2)] {
        let Ok(client) = sqlx::ConnectOptions::connect(&*options).await else { return Ok(()) };
        clients.push((client, sql, number));
    }
    for _ in 0..TURNS {
        for (client, sql, number) in &mut clients {
            match sqlx::query_scalar::<_, i32>(*sql).fetch_one(&mut *client).await {
                Ok(row) if row == *number => {}
                Err(error) if !is_mixed_statement(&error) => return Ok(()),
                Ok(_) | Err(_) => return Err(POOLER_REQUIREMENT),
            }
        }
    }
    for (client, ..) in clients {
        // The connection is not needed any more, so an error of its end is ignored.
        drop(client.close().await);
    }
    Ok(())
}

/// There is no PostgreSQL without its driver.
#[cfg(not(feature = "sqlx-postgres"))]
pub(crate) async fn check(_: &DatabaseConnection) -> Result<(), &'static str> {
    Ok(())
}
