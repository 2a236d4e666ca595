//! A transaction for the framework's own statements, which waits for each response as long as for
//! that to a COMMIT.

use super::OutboxTransaction;
use async_trait::async_trait;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement};

/// What the error of a missing response names.
const WHAT: &str = "the outbox";

/// A transaction that is lost when one of its statements gets no response in time.
pub(super) struct Bounded<'a>(pub(super) &'a OutboxTransaction);

#[async_trait]
impl ConnectionTrait for Bounded<'_> {
    fn get_database_backend(&self) -> DbBackend {
        ConnectionTrait::get_database_backend(self.0)
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        self.0.bounded_statement(WHAT, self.0.execute_raw(stmt)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.0.bounded_statement(WHAT, self.0.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.0.bounded_statement(WHAT, self.0.query_one_raw(stmt)).await
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.0.bounded_statement(WHAT, self.0.query_all_raw(stmt)).await
    }

    fn support_returning(&self) -> bool {
        self.0.support_returning()
    }

    fn is_mock_connection(&self) -> bool {
        self.0.is_mock_connection()
    }
}
