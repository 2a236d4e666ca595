//! Messages that say what their handler does.

use outbox_sea_orm::{
    consumer::{EventHandler, HandlerError},
    prelude::*,
};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// What the handler does, after it has left its effect.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum What {
    Ends,
    Emits,
    /// Emits in a hook before the commit.
    EmitsLate,
    Fails(u32),
    Panics(u32),
    Rejects,
    Snoozes,
    Sleeps(u64),
    /// Waits in a hook before the commit.
    SleepsLate(u64),
    /// Fails at a statement, and goes on; behind a savepoint or without.
    SwallowsError(bool),
    /// Locks two rows, one after the other; swallows the error of the second or returns it.
    Locks(u8, u8, bool),
    /// Writes through the driver's own transaction.
    UsesDriver,
}

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "batches.script", topic = "scripts")]
pub(crate) struct Script {
    pub(crate) n: u32,
    #[outbox(key)]
    pub(crate) group: Option<String>,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "batches.told", topic = "told")]
pub(crate) struct Told {
    pub(crate) handler: String,
    #[outbox(key)]
    pub(crate) group: Option<String>,
    pub(crate) n: u32,
}

/// How often the hooks after a commit ran, by number of the message.
pub(crate) type Committed = Arc<Mutex<BTreeMap<u32, u32>>>;

/// Does what the messages say.
#[derive(Clone, Default)]
pub(crate) struct Actor {
    pub(crate) committed: Committed,
    /// Every run, also of batches that were rolled back: number and attempt.
    pub(crate) runs: Arc<Mutex<Vec<(u32, u32)>>>,
    /// Errors of a second lock, as deadlocks are, that the handler swallowed.
    pub(crate) swallowed: Arc<AtomicU64>,
}

impl EventHandler<Script, Outbox> for Actor {
    async fn handle(&self, script: Script, cx: &HandlerContext) -> Result<(), HandlerError> {
        let Script { n, group, what } = script;
        let (attempt, handler) = (cx.attempt(), cx.handler().to_owned());
        self.runs.lock().unwrap().push((n, attempt));
        let committed = self.committed.clone();
        cx.tx.after_commit(move || *committed.lock().unwrap().entry(n).or_default() += 1);
        effect(&cx.tx, &handler, group.as_deref(), n, attempt).await?;
        match what {
            What::Ends => {}
            What::Emits => {
                cx.tx.emit(Told { handler, group, n })?;
            }
            What::EmitsLate => cx.tx.before_commit(move |tx| {
                Box::pin(async move {
                    tx.emit(Told { handler, group, n })?;
                    Ok(())
                })
            }),
            What::Fails(attempts) if attempt <= attempts => {
                return Err(HandlerError::retry("not yet"));
            }
            What::Panics(attempts) => assert!(attempt > attempts, "a bug in attempt {attempt}"),
            What::Rejects => return Err(HandlerError::reject("never")),
            What::Snoozes if attempt == 1 => {
                return Err(HandlerError::snooze(Duration::from_millis(100)));
            }
            What::Fails(_) | What::Snoozes => {}
            What::Sleeps(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            What::SleepsLate(ms) => cx.tx.before_commit(move |_| {
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    Ok(())
                })
            }),
            What::SwallowsError(behind_savepoint) => {
                swallow(&cx.tx, behind_savepoint).await?;
                let _ = effect(&cx.tx, &handler, Some("swallowed"), n, attempt).await;
            }
            What::Locks(first, second, swallows) => {
                lock(&cx.tx, &handler, first).await?;
                tokio::time::sleep(Duration::from_millis(4)).await;
                match lock(&cx.tx, &handler, second).await {
                    Err(_) if swallows => {
                        self.swallowed.fetch_add(1, Ordering::Relaxed);
                        let _ = effect(&cx.tx, &handler, Some("swallowed"), n, attempt).await;
                    }
                    locked => locked?,
                }
            }
            What::UsesDriver => {
                effect(cx.tx.sea_orm().await?, &handler, Some("driver"), n, attempt).await?;
            }
        }
        Ok(())
    }
}

async fn run<C: ConnectionTrait>(conn: &C, sql: &str) -> Result<(), DbErr> {
    conn.execute_raw(Statement::from_string(conn.get_database_backend(), sql)).await.map(drop)
}

async fn effect<C: ConnectionTrait>(
    conn: &C,
    handler: &str,
    group: Option<&str>,
    n: u32,
    attempt: u32,
) -> Result<(), DbErr> {
    // One text for all, as in a real handler: MariaDB's driver is slow beyond a hundred of them.
    let marks = match conn.get_database_backend() {
        DbBackend::Postgres => "$1, $2, $3, $4",
        _ => "?, ?, ?, ?",
    };
    let sql = format!("INSERT INTO effects (handler, grp, n, attempt) VALUES ({marks})");
    let values = [handler.into(), group.into(), i64::from(n).into(), i64::from(attempt).into()];
    let statement = Statement::from_sql_and_values(conn.get_database_backend(), sql, values);
    conn.execute_raw(statement).await.map(drop)
}

async fn lock(tx: &OutboxTransaction, handler: &str, id: u8) -> Result<(), DbErr> {
    run(tx, &format!("UPDATE locks SET n = n + 1 WHERE handler = '{handler}' AND id = {id}")).await
}

async fn swallow(tx: &OutboxTransaction, behind_savepoint: bool) -> Result<(), OutboxError> {
    const TAKEN: &str = "INSERT INTO taken (id) VALUES (1)";
    if behind_savepoint {
        let inside = tx.begin().await?;
        assert!(run(&inside, TAKEN).await.is_err());
        return inside.rollback().await;
    }
    assert!(run(tx, TAKEN).await.is_err());
    Ok(())
}
