//! Beside other attributes that rewrite functions.

use crate::support::*;
use tracing::instrument;

#[instrument(skip(tx))]
#[transactional_outbox]
async fn above(tx: &OutboxTransaction, id: i64) -> Result<i64, AppError> {
    tx.emit(OrderPlaced { order_id: id })?;
    Ok(id)
}

#[transactional_outbox]
#[instrument(skip(tx), err)]
async fn below(tx: &OutboxTransaction, id: i64) -> Result<i64, AppError> {
    tx.emit(OrderPlaced { order_id: id })?;
    Ok(id)
}

#[transactional_outbox]
#[instrument]
async fn recorded(tx: &OutboxTransaction, id: i64) -> Result<i64, AppError> {
    tx.emit(OrderPlaced { order_id: id })?;
    Ok(id)
}

pub(crate) fn main() {
    run(async {
        let outbox = outbox().await;
        send(above(&outbox, 1)).await.unwrap();
        below(&outbox, 1).await.unwrap();
        recorded(&outbox, 1).await.unwrap();
        assert_eq!(events(&outbox).await, 3);
    });
}
