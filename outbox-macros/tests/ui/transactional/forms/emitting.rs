//! Events made of what a function returns.

use crate::support::*;

#[transactional_outbox(emit = |id| OrderPlaced::from(id))]
async fn closure(tx: &OutboxTransaction, id: i64) -> Result<i64, AppError> {
    tx.execute_unprepared("SELECT 1").await?;
    if id < 0 {
        return Err(AppError::Refused);
    }
    Ok(id)
}

#[transactional_outbox(emit = OrderPlaced::from, retry = 2)]
async fn path(tx: &OutboxTransaction, id: i64) -> anyhow::Result<i64> {
    tx.execute_unprepared("SELECT 1").await?;
    Ok(id)
}

#[transactional_outbox(emit = |(id, _)| OrderPlaced { order_id: *id })]
async fn pattern(_: &OutboxTransaction, id: i64) -> Result<(i64, String), DbErr> {
    Ok((id, String::new()))
}

struct Orders {
    outbox: Outbox,
}

impl Orders {
    #[transactional_outbox(outbox = self.outbox, emit = |id| OrderPlaced::from(id))]
    async fn create(&self, txn: &DatabaseTransaction, id: i64) -> Result<i64, AppError> {
        txn.execute_unprepared("SELECT 1").await?;
        if id < 0 { Err(AppError::Refused) } else { Ok(id) }
    }
}

#[transactional_outbox(outbox = outbox, emit = |id| OrderPlaced::from(id))]
async fn generic<C: ConnectionTrait + sea_orm::TransactionSession>(
    outbox: &Outbox,
    txn: &C,
    id: i64,
) -> Result<i64, AppError> {
    txn.execute_unprepared("SELECT 1").await?;
    Ok(id)
}

pub(crate) fn main() {
    run(async {
        let outbox = outbox().await;
        send(closure(&outbox, 1)).await.unwrap();
        assert!(closure(&outbox, -1).await.is_err());
        path(&outbox, 1).await.unwrap();
        pattern(&outbox, 1).await.unwrap();
        let orders = Orders { outbox: outbox.clone() };
        let txn = outbox.connection().begin().await.unwrap();
        send(orders.create(&txn, 1)).await.unwrap();
        assert!(orders.create(&txn, -1).await.is_err());
        generic(&outbox, &txn, 1).await.unwrap();
        txn.commit().await.unwrap();
        assert_eq!(events(&outbox).await, 5);
    });
}
