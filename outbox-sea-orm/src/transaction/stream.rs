//! Rows of a query, one by one, in the transaction's statement queue.

use super::{
    OutboxTransaction,
    statement_queue::{Streaming, Turn},
};
use futures_util::{Stream, StreamExt};
use sea_orm::{DbErr, QueryResult, Statement, StreamTrait};
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// Rows read ahead: enough that one poll moves several, few enough to hold in memory.
const AHEAD: usize = 16;

/// Rows of a query in an [`OutboxTransaction`].
///
/// Until it has given the last one or is dropped, the transaction's connection can do nothing else:
/// another statement, a nested transaction and a second stream of any task are refused with
/// [`OutboxError::Streaming`](crate::OutboxError::Streaming). Collect the rows before writing:
///
/// ```
/// # use outbox_sea_orm::prelude::*;
/// # use sea_orm::{ConnectionTrait, DbErr, Statement};
/// # async fn example(tx: &OutboxTransaction, query: Statement) -> Result<(), DbErr> {
/// for row in tx.query_all_raw(query).await? {
///     // .. statements with `tx` ..
/// # drop(row);
/// }
/// # Ok(()) }
/// ```
pub struct TransactionRows<'a> {
    // Before the turn, so that a dropped stream stops its query at the next turn.
    rows: mpsc::Receiver<Result<QueryResult, DbErr>>,
    turn: Option<StreamTurn<'a>>,
}

/// The turn, until the last row.
struct StreamTurn<'a> {
    // Dropped before the turn: after that another caller may have begun a stream.
    _streaming: Streaming<'a>,
    turn: Turn<'a>,
}

impl OutboxTransaction {
    pub(super) async fn rows(&self, statement: Statement) -> Result<TransactionRows<'_>, DbErr> {
        // `INSERT .. RETURNING` gives rows too.
        self.note_write(&statement.sql)?;
        // How many rows a stream changes is not known.
        let change = self.trial_change(&statement.sql)?;
        self.note_change(change, None);
        let mut turn = self.shared.turn(self.frame.id).await?;
        let (send, rows) = mpsc::channel(AHEAD);
        let (txn, state) = (self.shared.txn.clone(), self.shared.state.clone());
        state.lock().note_started();
        turn.start(async move {
            let result = async {
                let mut stream = txn.stream_raw(statement).await?;
                while let Some(row) = stream.next().await {
                    if send.send(Ok(row?)).await.is_err() {
                        // The reader was dropped. The next statement gets what the database still
                        // sends.
                        return Ok(false);
                    }
                }
                Ok(true)
            };
            match result.await {
                Ok(true) => state.lock().note(Ok(())),
                Ok(false) => {}
                Err(error) => {
                    state.lock().note(Err(&error));
                    let _ = send.send(Err(error)).await;
                }
            }
        });
        let turn = StreamTurn { _streaming: self.shared.queue.stream(), turn };
        Ok(TransactionRows { rows, turn: Some(turn) })
    }
}

impl Stream for TransactionRows<'_> {
    type Item = Result<QueryResult, DbErr>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(turn) = &mut this.turn {
            let _ = turn.turn.poll(cx);
        }
        let row = this.rows.poll_recv(cx);
        if matches!(row, Poll::Ready(None)) {
            this.turn = None;
        }
        row
    }
}

impl fmt::Debug for TransactionRows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionRows").finish_non_exhaustive()
    }
}
