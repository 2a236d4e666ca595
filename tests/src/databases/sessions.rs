//! The state of other sessions of a database, as its server reports it.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement};
use std::collections::HashSet;

/// Counts the sessions of the connection's database that wait for a lock of another. SQLite has no such sessions: 0.
///
/// # Panics
/// When the server does not report them.
pub async fn waiting_for_locks(connection: &DatabaseConnection) -> usize {
    let postgres = "wait_event_type = 'Lock'";
    counted(connection, postgres, |transaction| transaction.contains("\nLOCK WAIT ")).await
}

/// Counts the other sessions of the connection's database that are inside a transaction. SQLite
/// reports none: 0.
///
/// # Panics
/// When the server does not report them.
pub async fn open_transactions(connection: &DatabaseConnection) -> usize {
    let postgres =
        "pid <> pg_backend_pid() AND xact_start IS NOT NULL AND backend_type = 'client backend'";
    counted(connection, postgres, |transaction| !transaction.contains(", not started\n")).await
}

async fn counted(
    connection: &DatabaseConnection,
    postgres: &str,
    mariadb: fn(&str) -> bool,
) -> usize {
    let counted = match connection.get_database_backend() {
        DbBackend::Postgres => on_postgres(connection, postgres).await,
        DbBackend::MySql => on_mariadb(connection, mariadb).await,
        _ => Ok(0),
    };
    counted.unwrap_or_else(|error| panic!("the server does not tell what its sessions do: {error}"))
}

async fn on_postgres(connection: &DatabaseConnection, condition: &str) -> Result<usize, DbErr> {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {condition}"
    );
    let row = connection.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    let count: i64 = row.map_or(Ok(0), |row| row.try_get_by_index(0))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Queries the storage engine's report: its tables in `information_schema` are a copy that is not
/// refreshed while it is queried more often than ten times a second.
async fn on_mariadb(
    connection: &DatabaseConnection,
    counts: fn(&str) -> bool,
) -> Result<usize, DbErr> {
    let asked = |sql| Statement::from_string(DbBackend::MySql, sql);
    let Some(report) = connection.query_one_raw(asked("SHOW ENGINE INNODB STATUS")).await? else {
        return Ok(0);
    };
    let threads = threads(&report.try_get::<String>("", "Status")?, counts);
    let sessions = "SELECT CAST(id AS UNSIGNED) FROM information_schema.processlist \
                    WHERE db = database() AND id <> connection_id()";
    let mut count = 0;
    for session in connection.query_all_raw(asked(sessions)).await? {
        count += usize::from(threads.contains(&session.try_get_by_index::<u64>(0)?));
    }
    Ok(count)
}

/// Reads the threads of some transactions from the engine's report, where each begins with `---TRANSACTION`.
fn threads(report: &str, counts: fn(&str) -> bool) -> HashSet<u64> {
    let mut threads = HashSet::new();
    for transaction in report.split("---TRANSACTION").skip(1).filter(|text| counts(text)) {
        let thread = transaction.split_once("thread id ").map(|(_, rest)| rest);
        let digits = thread.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        threads.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    threads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_threads_that_are_asked_for_are_read_from_the_report() {
        let report = "TRANSACTIONS\n---TRANSACTION 7, ACTIVE 2 sec starting index read\nmysql tables in use 1, locked 1\n\
                      LOCK WAIT 2 lock struct(s), heap size 1128, 1 row lock(s)\nMariaDB thread id 31, OS thread handle 9\n\
                      ---TRANSACTION 6, ACTIVE 3 sec\n1 lock struct(s)\nMariaDB thread id 30, OS thread handle 8\n";
        assert_eq!(threads(report, |text| text.contains("\nLOCK WAIT ")), HashSet::from([31]));
        assert_eq!(threads(report, |_| true), HashSet::from([30, 31]));
    }
}
