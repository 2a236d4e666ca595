//! SeaORM's own traits, so that all of SeaORM takes `&OutboxTransaction`.

use super::{OutboxTransaction, TransactionRows, open::within};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult,
    Statement, StreamTrait, TransactionError, TransactionOptions, TransactionSession,
    TransactionTrait,
};

#[async_trait]
impl ConnectionTrait for OutboxTransaction {
    fn get_database_backend(&self) -> DbBackend {
        ConnectionTrait::get_database_backend(&*self.shared.txn)
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        self.note_write(&stmt.sql)?;
        let change = self.trial_change(&stmt.sql)?;
        let done = self
            .shared
            .statement(self.frame.id, |txn| async move { txn.execute_raw(stmt).await })
            .await?;
        self.note_change(change, Some(done.rows_affected()));
        Ok(done)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.note_write(sql)?;
        let change = self.trial_change(sql)?;
        let sql = sql.to_owned();
        let done = self
            .shared
            .statement(self.frame.id, |txn| async move { txn.execute_unprepared(&sql).await })
            .await?;
        self.note_change(change, Some(done.rows_affected()));
        Ok(done)
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.note_write(&stmt.sql)?;
        let change = self.trial_change(&stmt.sql)?;
        let row = self
            .shared
            .statement(self.frame.id, |txn| async move { txn.query_one_raw(stmt).await })
            .await?;
        self.note_change(change, Some(u64::from(row.is_some())));
        Ok(row)
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.note_write(&stmt.sql)?;
        let change = self.trial_change(&stmt.sql)?;
        let rows = self
            .shared
            .statement(self.frame.id, |txn| async move { txn.query_all_raw(stmt).await })
            .await?;
        self.note_change(change, Some(rows.len() as u64));
        Ok(rows)
    }

    fn support_returning(&self) -> bool {
        self.shared.txn.support_returning()
    }

    fn is_mock_connection(&self) -> bool {
        self.shared.txn.is_mock_connection()
    }
}

impl OutboxTransaction {
    /// Counts a statement that may write (`WITH` too, since a common table expression can), and
    /// refuses one that does in a read-only transaction: SQLite would not.
    pub(super) fn note_write(&self, sql: &str) -> Result<(), DbErr> {
        const READ: [&str; 5] = ["select", "show", "explain", "pragma", "set"];
        const WRITE: [&str; 9] = [
            "insert", "update", "delete", "replace", "merge", "create", "drop", "alter", "truncate",
        ];
        let sql = sql.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
        let verb = sql.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        let is_one_of = |verbs: &[&str]| verbs.iter().any(|known| verb.eq_ignore_ascii_case(known));
        if is_one_of(&READ) {
            return Ok(());
        }
        self.shared.state.lock().note_write();
        if is_one_of(&WRITE) { self.check_write() } else { Ok(()) }
    }

    /// Refuses to write in a read-only transaction.
    pub(super) fn check_write(&self) -> Result<(), DbErr> {
        if self.shared.state.lock().is_read_only() {
            return Err(DbErr::Custom(
                "this transaction is read-only (`read_only`): write in a function without that option, which is called outside of \
                 this one"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

impl StreamTrait for OutboxTransaction {
    type Stream<'a> = TransactionRows<'a>;

    fn get_database_backend(&self) -> DbBackend {
        ConnectionTrait::get_database_backend(self)
    }

    fn stream_raw<'a>(
        &'a self,
        stmt: Statement,
    ) -> BoxFuture<'a, Result<TransactionRows<'a>, DbErr>> {
        Box::pin(self.rows(stmt))
    }
}

#[async_trait]
impl TransactionSession for OutboxTransaction {
    async fn commit(self) -> Result<(), DbErr> {
        Ok(Self::commit(self).await?)
    }

    async fn rollback(self) -> Result<(), DbErr> {
        Ok(Self::rollback(self).await?)
    }
}

/// Refuses options: a nested transaction has the isolation of the one around it.
fn no_options(options: TransactionOptions) -> Result<(), DbErr> {
    match options {
        TransactionOptions { isolation_level: None, access_mode: None, .. } => Ok(()),
        _ => Err(DbErr::Custom(
            "isolation and access mode belong to the outermost transaction".into(),
        )),
    }
}

#[async_trait]
impl TransactionTrait for OutboxTransaction {
    type Transaction = Self;

    async fn begin(&self) -> Result<Self, DbErr> {
        Ok(Self::begin(self).await?)
    }

    async fn begin_with_config(
        &self,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<Self, DbErr> {
        let options =
            TransactionOptions { isolation_level, access_mode, ..TransactionOptions::default() };
        self.begin_with_options(options).await
    }

    async fn begin_with_options(&self, options: TransactionOptions) -> Result<Self, DbErr> {
        no_options(options)?;
        Ok(Self::begin(self).await?)
    }

    async fn transaction<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c Self) -> BoxFuture<'c, Result<T, E>> + Send,
        T: Send,
        E: std::fmt::Display + std::fmt::Debug + Send,
    {
        run_callback(TransactionTrait::begin(self).await?, callback).await
    }

    async fn transaction_with_config<F, T, E>(
        &self,
        callback: F,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c Self) -> BoxFuture<'c, Result<T, E>> + Send,
        T: Send,
        E: std::fmt::Display + std::fmt::Debug + Send,
    {
        run_callback(self.begin_with_config(isolation_level, access_mode).await?, callback).await
    }
}

/// Runs a callback of SeaORM's form: `Ok` commits, `Err` rolls back.
pub(crate) async fn run_callback<F, T, E>(
    tx: OutboxTransaction,
    callback: F,
) -> Result<T, TransactionError<E>>
where
    F: for<'c> FnOnce(&'c OutboxTransaction) -> BoxFuture<'c, Result<T, E>> + Send,
    T: Send,
    E: std::fmt::Display + std::fmt::Debug + Send,
{
    let result = within(&tx, callback(&tx)).await;
    match result {
        Ok(value) => {
            tx.commit().await.map_err(|error| TransactionError::Connection(error.into()))?;
            Ok(value)
        }
        Err(error) => {
            tx.rollback_quietly().await;
            Err(TransactionError::Transaction(error))
        }
    }
}
