//! Functions that return a future by hand.

use std::pin::Pin;
use crate::support::*;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[transactional_outbox]
fn aliased<'a>(tx: &'a OutboxTransaction, id: i64) -> BoxFuture<'a, Result<i64, AppError>> {
    Box::pin(async move {
        tx.emit(OrderPlaced { order_id: id })?;
        Ok(id)
    })
}

#[transactional_outbox]
fn written_out<'a>(
    tx: &'a OutboxTransaction,
    depth: i64,
) -> Pin<Box<dyn Future<Output = Result<i64, AppError>> + Send + 'a>> {
    Box::pin(async move {
        tx.emit(OrderPlaced { order_id: depth })?;
        if depth == 0 { Ok(0) } else { written_out(tx, depth - 1).await }
    })
}

pub(crate) fn main() {
    run(async {
        let outbox = outbox().await;
        aliased(&outbox, 1).await.unwrap();
        send(written_out(&outbox, 2)).await.unwrap();
        assert_eq!(events(&outbox).await, 4);
    });
}
