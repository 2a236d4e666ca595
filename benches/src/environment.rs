//! The environment of a benchmark: a database of its own on the shared server, or on a private
//! server.

use crate::load::fill::PARTITIONS;
use anyhow::Result;
use outbox_sea_orm::Outbox;
use sea_orm::{
    ConnectOptions, DatabaseConnection,
    sqlx::{self, PgPool, Row},
};
use tests::{
    databases::{Database, TempDatabase},
    servers::{Server, postgres},
};

/// Settings of a server of our own: PostgreSQL's defaults, counted statements.
const SETTINGS: [&str; 6] = [
    "-c",
    "fsync=on",
    "-c",
    "shared_preload_libraries=pg_stat_statements",
    "-c",
    "max_connections=100",
];

/// A database with an outbox and a table of orders.
pub(crate) struct Environment {
    pub(crate) outbox: Outbox,
    pub(crate) pool: PgPool,
    url: String,
    /// Dropped last, since that drops the database.
    _home: Home,
}

enum Home {
    Shared { _database: TempDatabase },
    Own { _server: Server },
}

impl Environment {
    /// Makes a database on the shared server, with a pool of so many connections.
    pub(crate) async fn shared(connections: u32) -> Result<Self> {
        Self::with_partitions(connections, PARTITIONS).await
    }

    /// Makes the same with so many partitions, 1 to 128.
    pub(crate) async fn with_partitions(connections: u32, partitions: u16) -> Result<Self> {
        let database = TempDatabase::create(Database::Postgres).await;
        let url = database.url().to_owned();
        Self::open(url, connections, partitions, Home::Shared { _database: database }).await
    }

    /// Starts a server.
    pub(crate) async fn own(connections: u32) -> Result<Self> {
        let server = postgres::start_with(&SETTINGS).await;
        let url = server.url();
        Self::open(url, connections, PARTITIONS, Home::Own { _server: server }).await
    }

    async fn open(url: String, connections: u32, partitions: u16, home: Home) -> Result<Self> {
        let db = connect(&url, connections).await?;
        let pool = db.get_postgres_connection_pool().clone();
        let orders = "CREATE TABLE orders (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer TEXT NOT NULL, \
                      total BIGINT NOT NULL)";
        sqlx::raw_sql(orders).execute(&pool).await?;
        let outbox = Outbox::builder(db).source("bench").partitions(partitions).install().await?;
        Ok(Self { outbox, pool, url, _home: home })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Empties the tables; ids begin with 1 again.
    pub(crate) async fn empty(&self) -> Result<()> {
        let empty = "TRUNCATE outbox_events, outbox_retries, outbox_inbox, orders RESTART IDENTITY";
        sqlx::raw_sql(empty).execute(&self.pool).await?;
        Ok(())
    }

    /// Bytes of WAL that the server has written so far.
    pub(crate) async fn wal(&self) -> Result<f64> {
        self.number("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8").await
    }

    /// The server's main process.
    pub(crate) async fn postmaster(&self) -> Result<u32> {
        let backend: i32 =
            sqlx::query("SELECT pg_backend_pid()").fetch_one(&self.pool).await?.get(0);
        crate::machine::parent_of(backend.unsigned_abs())
    }

    /// Gives one number.
    pub(crate) async fn number(&self, sql: &'static str) -> Result<f64> {
        Ok(sqlx::query(sql).fetch_one(&self.pool).await?.get(0))
    }
}

/// Connects with a pool of so many connections.
pub(crate) async fn connect(url: &str, connections: u32) -> Result<DatabaseConnection> {
    let mut options = ConnectOptions::new(url);
    options.max_connections(connections).sqlx_logging(false);
    Ok(sea_orm::Database::connect(options).await?)
}
