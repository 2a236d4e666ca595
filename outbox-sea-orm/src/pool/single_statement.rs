//! Single statements on the framework's own connections, each in a transaction of its own.

use super::{run_to_completion::RunToCompletion, work_pool::WorkPool};
use async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement, TransactionOptions,
};
use std::{pin::pin, time::Duration};

/// Runs single statements, each of which may take longer than a response.
///
/// Where nothing is heard of a connection any more, a statement is waited for as long. So these are for
/// statements that walk over a table, and whose caller keeps nobody waiting.
pub(crate) struct SingleStatements<'a> {
    work: &'a WorkPool,
    longer: Duration,
}

impl<'a> SingleStatements<'a> {
    /// Runs them on a pool; each may take so much longer than a response.
    pub(super) const fn new(work: &'a WorkPool, longer: Duration) -> Self {
        Self { work, longer }
    }
}

/// Runs a statement in a transaction of its own, whose BEGIN shows whether the connection is alive,
/// and which has the limits; on the application's pool, which pings, by itself.
///
/// It comes to its end, within the bound, even when the caller is dropped: MySQL's driver loses
/// count of the responses to a statement that is dropped while it is prepared, and the connection
/// would never return to the pool.
macro_rules! alone {
    ($single:expr, $pool:ident, $bound:ident, $conn:ident => $statement:expr) => {{
        let (pool, (set, _)) = ($pool, $single.work.statements(None));
        let longest = $bound.and($single.longer);
        if pool.shared {
            let $conn = &pool.db;
            return $statement.await;
        }
        RunToCompletion::on_current(async move {
            let txn = pool.begin(TransactionOptions::default(), $bound).await?;
            // Its connection is in use, and not stuck; what waits for a connection has none yet.
            let _share = pool.share();
            // Dropped after the pool is closed, so that its connection does not return to the pool.
            let mut running = pin!(async move {
                if !set.is_empty() {
                    txn.execute_unprepared(&set).await?;
                }
                let $conn = &txn;
                let done = $statement.await?;
                txn.commit().await?;
                Ok(done)
            });
            match tokio::time::timeout_at(longest.until.into(), running.as_mut()).await {
                Ok(done) => done,
                Err(_) => Err(pool.overdue(longest)),
            }
        })
        .await
    }};
}

#[async_trait]
impl ConnectionTrait for SingleStatements<'_> {
    fn get_database_backend(&self) -> DbBackend {
        self.work.get_database_backend()
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        self.work
            .run_on_pool(self.longer, |pool, bound| {
                let stmt = stmt.clone();
                async move { alone!(self, pool, bound, conn => conn.execute_raw(stmt)) }
            })
            .await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.work
            .run_on_pool(self.longer, |pool, bound| {
                let sql = sql.to_owned();
                async move { alone!(self, pool, bound, conn => conn.execute_unprepared(&sql)) }
            })
            .await
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.work
            .run_on_pool(self.longer, |pool, bound| {
                let stmt = stmt.clone();
                async move { alone!(self, pool, bound, conn => conn.query_one_raw(stmt)) }
            })
            .await
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.work
            .run_on_pool(self.longer, |pool, bound| {
                let stmt = stmt.clone();
                async move { alone!(self, pool, bound, conn => conn.query_all_raw(stmt)) }
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        dialect::{Dialect, TransactionLimits},
        pool::{DbErrorClass, WorkPool, classify},
    };
    use sea_orm::{
        ConnectionTrait, SqlxPostgresConnector,
        sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
    };
    use std::{
        io::{Read, Result, Write},
        net::{TcpListener, TcpStream},
        sync::mpsc::{self, Receiver, Sender},
        thread,
        time::Duration,
    };

    /// What PostgreSQL sends to a client that it lets in without a password: so, its number, ready.
    const LETS_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x01Z\0\0\0\x05I";
    /// Longer than a connection and a response may take here, and shorter than a statement may.
    const SLOW: Duration = Duration::from_secs(2);

    /// Answers a client as PostgreSQL does, an UPDATE when it is let.
    fn serve(mut client: TcpStream, lets: &Receiver<()>) -> Result<()> {
        let mut startup = [0; 4096];
        let _length = client.read(&mut startup)?;
        client.write_all(LETS_IN)?;
        loop {
            let mut head = [0; 5];
            client.read_exact(&mut head)?;
            let [kind, length @ ..] = head;
            let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap_or(4) - 4];
            client.read_exact(&mut body)?;
            let (tag, status) = match body.first() {
                Some(b'B') => (b"C\0\0\0\x0aBEGIN\0".as_slice(), b'T'),
                Some(b'U') if lets.recv().is_ok() => (b"C\0\0\0\x0dUPDATE 1\0".as_slice(), b'T'),
                Some(b'C') => (b"C\0\0\0\x0bCOMMIT\0".as_slice(), b'I'),
                // A ping.
                None if kind == b'S' => (b"".as_slice(), b'I'),
                _ => return Ok(()),
            };
            client.write_all(&[tag, b"Z\0\0\0\x05", &[status]].concat())?;
        }
    }

    /// A pool of one connection to a server that answers an UPDATE when it is let.
    fn pool_to_a_slow_server() -> (WorkPool, Sender<()>) {
        let (sender, lets) = mpsc::channel();
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = listener.local_addr().expect("it listens").port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // One that has gone.
                drop(serve(client, &lets));
            }
        });
        let server = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username("shop")
            .ssl_mode(PgSslMode::Disable);
        let acquire = Duration::from_millis(300);
        let options = PgPoolOptions::new().max_connections(1).acquire_timeout(acquire);
        let db = SqlxPostgresConnector::from_sqlx_postgres_pool(options.connect_lazy_with(server));
        let short = Duration::from_millis(100);
        let limits = TransactionLimits { idle: short, lock_wait: short, statement: 10 * SLOW };
        assert!(acquire + limits.response() < SLOW);
        (WorkPool::new(&db, Dialect::Postgres, limits, false), sender)
    }

    #[tokio::test]
    async fn a_statement_that_walks_over_a_table_has_the_server_s_limit_and_closes_no_pool() {
        const UPDATE: &str = "UPDATE deferred SET due_at = 0";
        let (work, lets) = pool_to_a_slow_server();
        let pool = work.current();
        let long = work.long_statements();
        let slowly = async {
            tokio::time::sleep(SLOW).await;
            lets.send(()).expect("the server waits");
        };
        let (done, ()) = tokio::join!(long.execute_unprepared(UPDATE), slowly);
        assert_eq!(done.expect("it has the time").rows_affected(), 1);
        assert!(!pool.is_closed());
        // Any other is given up, since its connection may be lost.
        let error = work.execute_unprepared(UPDATE).await.map(drop).unwrap_err();
        assert_eq!(classify(&error), DbErrorClass::Busy, "{error}");
        assert!(pool.is_closed());
    }
}
