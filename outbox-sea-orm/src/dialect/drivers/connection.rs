//! One connection of the relay, of any driver.

use sea_orm::{
    QueryResult,
    sqlx::{self, Arguments, AssertSqlSafe, Connection},
};
use std::sync::Arc;

/// A value bound to a statement. Lists are for PostgreSQL alone.
#[derive(Debug, Clone)]
pub(crate) enum Arg<'a> {
    Int(Option<i64>),
    Small(i16),
    Flag(bool),
    Text(Option<&'a str>),
    Bytes(&'a [u8]),
    Uuid(uuid::Uuid),
    Ints(&'a [i64]),
    Smalls(&'a [i16]),
    Flags(&'a [bool]),
}

impl Arg<'_> {
    /// An integer.
    pub(crate) const fn int(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

/// A connection.
pub(crate) enum DriverConnection {
    #[cfg(feature = "sqlx-postgres")]
    Postgres(sqlx::PgConnection),
    /// Through a pooler, which may give each transaction another connection of the server: no
    /// statement is prepared under a name.
    #[cfg(feature = "sqlx-postgres")]
    Pooled(sqlx::PgConnection),
    #[cfg(feature = "sqlx-mysql")]
    MySql(sqlx::MySqlConnection),
    #[cfg(feature = "sqlx-sqlite")]
    Sqlite(sqlx::SqliteConnection),
    /// A connection of the application's pool, whose memory is the database.
    #[cfg(feature = "sqlx-sqlite")]
    Shared(sqlx::pool::PoolConnection<sqlx::Sqlite>),
}

macro_rules! bind {
    ($arguments:ty, $args:expr, $arg:pat => $lists:expr) => {{
        let mut bound = <$arguments>::default();
        for arg in $args {
            let added = match arg {
                Arg::Int(v) => bound.add(*v),
                Arg::Small(v) => bound.add(*v),
                Arg::Flag(v) => bound.add(*v),
                Arg::Text(v) => bound.add(*v),
                Arg::Bytes(v) => bound.add(*v),
                Arg::Uuid(v) => bound.add(*v),
                $arg => $lists(&mut bound, arg),
            };
            added.map_err(sqlx::Error::Encode)?;
        }
        bound
    }};
}

#[cfg(feature = "sqlx-postgres")]
fn postgres(args: &[Arg<'_>]) -> Result<sqlx::postgres::PgArguments, sqlx::Error> {
    let lists = |bound: &mut sqlx::postgres::PgArguments, arg: &Arg<'_>| match arg {
        Arg::Ints(v) => bound.add(*v),
        Arg::Smalls(v) => bound.add(*v),
        Arg::Flags(v) => bound.add(*v),
        other => Err(format!("not a list: {other:?}").into()),
    };
    Ok(bind!(sqlx::postgres::PgArguments, args, _ => lists))
}

#[cfg(feature = "sqlx-mysql")]
fn mysql(args: &[Arg<'_>]) -> Result<sqlx::mysql::MySqlArguments, sqlx::Error> {
    let lists = |_: &mut _, arg: &Arg<'_>| Err(format!("MySQL has no lists: {arg:?}").into());
    Ok(bind!(sqlx::mysql::MySqlArguments, args, _ => lists))
}

#[cfg(feature = "sqlx-sqlite")]
fn sqlite(args: &[Arg<'_>]) -> Result<sqlx::sqlite::SqliteArguments, sqlx::Error> {
    let lists = |_: &mut _, arg: &Arg<'_>| Err(format!("SQLite has no lists: {arg:?}").into());
    Ok(bind!(sqlx::sqlite::SqliteArguments, args, _ => lists))
}

/// Calls one of the drivers with its own arguments.
macro_rules! on {
    ($link:expr, $conn:ident, $args:ident => $bound:ident, $call:expr) => {
        match $link {
            #[cfg(feature = "sqlx-postgres")]
            DriverConnection::Postgres($conn) | DriverConnection::Pooled($conn) => {
                let $bound = postgres($args)?;
                $call
            }
            #[cfg(feature = "sqlx-mysql")]
            DriverConnection::MySql($conn) => {
                let $bound = mysql($args)?;
                $call
            }
            #[cfg(feature = "sqlx-sqlite")]
            DriverConnection::Sqlite($conn) => {
                let $bound = sqlite($args)?;
                $call
            }
            #[cfg(feature = "sqlx-sqlite")]
            DriverConnection::Shared($conn) => {
                let $conn = &mut **$conn;
                let $bound = sqlite($args)?;
                $call
            }
        }
    };
}

impl DriverConnection {
    /// Runs a prepared statement and gives its rows.
    pub(crate) async fn query(
        &mut self,
        sql: &Arc<str>,
        args: &[Arg<'_>],
    ) -> Result<Vec<QueryResult>, sqlx::Error> {
        let (sql, named) = (AssertSqlSafe(Arc::clone(sql)), self.names_statements());
        on!(self, conn, args => bound, {
            let rows = sqlx::query_with(sql, bound).persistent(named).fetch_all(conn).await?;
            Ok(rows.into_iter().map(Into::into).collect())
        })
    }

    /// Runs a prepared statement and gives the number of affected rows.
    pub(crate) async fn execute(
        &mut self,
        sql: &Arc<str>,
        args: &[Arg<'_>],
    ) -> Result<u64, sqlx::Error> {
        let (sql, named) = (AssertSqlSafe(Arc::clone(sql)), self.names_statements());
        on!(self, conn, args => bound, {
            Ok(sqlx::query_with(sql, bound).persistent(named).execute(conn).await?.rows_affected())
        })
    }

    /// Runs statements without preparing them, in one round trip where the driver can.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql);
        let none: &[Arg<'_>] = &[];
        on!(self, conn, none => _bound, sqlx::raw_sql(sql).execute(conn).await.map(|_| ()))
    }

    /// Pings the server.
    pub(crate) async fn ping(&mut self) -> Result<(), sqlx::Error> {
        let none: &[Arg<'_>] = &[];
        on!(self, conn, none => _bound, conn.ping().await)
    }

    /// Tells whether a statement is prepared once, under a name that the server keeps.
    const fn names_statements(&self) -> bool {
        #[cfg(feature = "sqlx-postgres")]
        if matches!(self, Self::Pooled(_)) {
            return false;
        }
        true
    }

    /// Tells whether the connection belongs to the application's pool.
    pub(crate) const fn is_shared(&self) -> bool {
        #[cfg(feature = "sqlx-sqlite")]
        if matches!(self, Self::Shared(_)) {
            return true;
        }
        false
    }
}
