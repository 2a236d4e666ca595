//! How a function takes part.

use crate::support::*;

#[transactional_outbox(nested)]
async fn nested(tx: &OutboxTransaction, order_id: i64) -> Result<(), AppError> {
    assert!(order_id == 0 || tx.is_nested());
    tx.emit(OrderPlaced { order_id })?;
    if order_id < 0 { Err(AppError::Refused) } else { Ok(()) }
}

#[transactional_outbox(mandatory)]
async fn mandatory(tx: &OutboxTransaction) -> Result<(), AppError> {
    tx.emit(OrderPlaced { order_id: 1 })?;
    Ok(())
}

#[transactional_outbox(requires_new, isolation = ReadCommitted)]
async fn requires_new(tx: &OutboxTransaction) -> Result<(), AppError> {
    tx.emit(OrderPlaced { order_id: 1 })?;
    Ok(())
}

#[transactional_outbox(isolation = Serializable, retry = 3)]
async fn serializable(tx: &OutboxTransaction, order_id: i64, note: &str) -> Result<usize, AppError> {
    tx.emit(OrderPlaced { order_id })?;
    Ok(note.len())
}

struct Service(Outbox);

impl Service {
    #[transactional_outbox(tx = self.0, mandatory)]
    async fn inside(&self) -> Result<(), AppError> {
        tx.emit(OrderPlaced { order_id: 1 })?;
        Ok(())
    }
}

pub(crate) fn main() {
    run(async {
        let outbox = outbox().await;
        nested(&outbox, 0).await.unwrap();
        requires_new(&outbox).await.unwrap();
        assert_eq!(send(serializable(&outbox, 7, "note")).await.unwrap(), 4);
        let tx = outbox.begin().await.unwrap();
        nested(&tx, 1).await.unwrap();
        assert!(nested(&tx, -1).await.is_err());
        mandatory(&tx).await.unwrap();
        serializable(&tx, 7, "note").await.unwrap();
        tx.commit().await.unwrap();
        let refused = Service(outbox.clone()).inside().await.unwrap_err();
        assert_eq!(refused.to_string(), "`inside` must be called inside a transaction");
        assert_eq!(events(&outbox).await, 6);
    });
}
