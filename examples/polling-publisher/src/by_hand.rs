//! The pattern as it is found in many services: a table, a poller, a count of attempts.

use crate::{
    EVENTS, ORDERS,
    destination::{Answer, Destination, act},
};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement, TransactionTrait};
use std::time::Duration;

const MAX_ATTEMPTS: i32 = 5;
const POLL: Duration = Duration::from_millis(20);

/// Saves the events with their orders, and polls until nothing is left to send.
pub(crate) async fn run(db: &DatabaseConnection, destination: &Destination) -> Result<(), DbErr> {
    db.execute_unprepared(
        "CREATE TABLE outbox (id INTEGER PRIMARY KEY, order_id BIGINT NOT NULL, what TEXT NOT NULL, \
         attempts INTEGER NOT NULL DEFAULT 0, sent INTEGER NOT NULL DEFAULT 0)",
    )
    .await?;
    let txn = db.begin().await?;
    for what in EVENTS {
        for order_id in 1..=ORDERS {
            let sql = "INSERT INTO outbox (order_id, what) VALUES (?, ?)";
            run_sql(&txn, sql, [order_id.into(), what.into()]).await?;
        }
    }
    txn.commit().await?;
    while poll(db, destination).await? {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Sends what is not sent; `false` when there is nothing.
async fn poll(db: &DatabaseConnection, destination: &Destination) -> Result<bool, DbErr> {
    let sql = "SELECT id, order_id, what FROM outbox WHERE sent = 0 AND attempts < ? ORDER BY id LIMIT 100";
    let backend = ConnectionTrait::get_database_backend(db);
    let rows = db
        .query_all_raw(Statement::from_sql_and_values(backend, sql, [MAX_ATTEMPTS.into()]))
        .await?;
    for row in &rows {
        let (id, order_id, what): (i64, i64, String) =
            (row.try_get_by_index(0)?, row.try_get_by_index(1)?, row.try_get_by_index(2)?);
        let answer = destination.answer(order_id, &what);
        if matches!(answer, Answer::Done | Answer::Lost) {
            act(db, order_id, &what).await?;
        }
        let sql = match answer {
            Answer::Done => "UPDATE outbox SET sent = 1 WHERE id = ?",
            // An error is an error; it goes on with the next one, or one message would stop all.
            Answer::Lost | Answer::Down | Answer::Refused => {
                "UPDATE outbox SET attempts = attempts + 1 WHERE id = ?"
            }
        };
        run_sql(db, sql, [id.into()]).await?;
    }
    Ok(!rows.is_empty())
}

async fn run_sql<C: ConnectionTrait, const N: usize>(
    db: &C,
    sql: &str,
    values: [sea_orm::Value; N],
) -> Result<(), DbErr> {
    let backend = ConnectionTrait::get_database_backend(db);
    db.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    Ok(())
}
