//! SeaORM's own traits, so that code over any connection takes `&Outbox`: reads without a
//! transaction, and transactions that are ours.

use super::Outbox;
use crate::transaction::{OutboxTransaction, run_callback};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult,
    Statement, TransactionError, TransactionOptions, TransactionTrait,
};
use std::fmt;

#[async_trait]
impl ConnectionTrait for Outbox {
    fn get_database_backend(&self) -> DbBackend {
        self.backend()
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        self.connection().execute_raw(stmt).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.connection().execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.connection().query_one_raw(stmt).await
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.connection().query_all_raw(stmt).await
    }

    fn support_returning(&self) -> bool {
        self.connection().support_returning()
    }

    fn is_mock_connection(&self) -> bool {
        self.connection().is_mock_connection()
    }
}

#[async_trait]
impl TransactionTrait for Outbox {
    type Transaction = OutboxTransaction;

    async fn begin(&self) -> Result<OutboxTransaction, DbErr> {
        Ok(Self::begin(self).await?)
    }

    async fn begin_with_config(
        &self,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<OutboxTransaction, DbErr> {
        let options =
            TransactionOptions { isolation_level, access_mode, ..TransactionOptions::default() };
        Ok(self.begin_with(options).await?)
    }

    async fn begin_with_options(
        &self,
        options: TransactionOptions,
    ) -> Result<OutboxTransaction, DbErr> {
        Ok(self.begin_with(options).await?)
    }

    async fn transaction<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c OutboxTransaction) -> BoxFuture<'c, Result<T, E>> + Send,
        T: Send,
        E: fmt::Display + fmt::Debug + Send,
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
        F: for<'c> FnOnce(&'c OutboxTransaction) -> BoxFuture<'c, Result<T, E>> + Send,
        T: Send,
        E: fmt::Display + fmt::Debug + Send,
    {
        run_callback(self.begin_with_config(isolation_level, access_mode).await?, callback).await
    }
}
