//! A function that opens a transaction or joins the caller's.

use crate::support::*;

#[transactional_outbox]
pub async fn place(tx: &OutboxTransaction, order_id: i64) -> Result<i64, AppError> {
    tx.execute_unprepared("SELECT 1").await?;
    tx.emit(OrderPlaced { order_id })?;
    if order_id < 0 {
        return Err(AppError::Refused);
    }
    Ok(order_id)
}

#[transactional_outbox()]
async fn place_two(tx: &OutboxTransaction) -> Result<(), AppError> {
    place(tx, 1).await?;
    place(tx, 2).await.map(drop)
}

pub(crate) fn main() {
    run(async {
        let outbox = outbox().await;
        assert_eq!(send(place(&outbox, 1)).await.unwrap(), 1);
        assert!(place(&outbox, -1).await.is_err());
        place_two(&outbox).await.unwrap();
        let tx = outbox.begin().await.unwrap();
        place(&tx, 4).await.unwrap();
        let either: &dyn Transactional = &tx;
        place(either, 5).await.unwrap();
        tx.commit().await.unwrap();
        place(&std::sync::Arc::new(outbox.clone()), 6).await.unwrap();
        assert_eq!(events(&outbox).await, 6);
    });
}
