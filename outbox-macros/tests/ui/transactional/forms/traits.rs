//! Implementations of traits whose methods are async natively.

use crate::support::*;

trait Repo {
    fn save(&self, tx: &dyn Transactional, id: i64) -> impl Future<Output = Result<i64, AppError>> + Send;

    /// Names the type: only a transaction will do.
    fn update(&self, tx: &OutboxTransaction, id: i64) -> impl Future<Output = Result<i64, AppError>> + Send;

    #[transactional_outbox]
    fn twice(&self, tx: &OutboxTransaction, id: i64) -> impl Future<Output = Result<i64, AppError>> + Send
    where
        Self: Sync,
    {
        async move {
            self.save(tx, id).await?;
            self.save(tx, id).await
        }
    }
}

struct Orders;

impl Repo for Orders {
    #[transactional_outbox]
    async fn save(&self, tx: &OutboxTransaction, id: i64) -> Result<i64, AppError> {
        tx.emit(OrderPlaced { order_id: id })?;
        Ok(id)
    }

    #[transactional_outbox(mandatory)]
    async fn update(&self, tx: &OutboxTransaction, id: i64) -> Result<i64, AppError> {
        tx.emit(OrderPlaced { order_id: id })?;
        Ok(id)
    }
}

async fn generic(repo: &(impl Repo + Sync), outbox: &Outbox) -> Result<i64, AppError> {
    repo.save(outbox, 1).await?;
    repo.twice(outbox, 1).await
}

pub(crate) fn main() {
    run(async {
        let outbox = outbox().await;
        send(generic(&Orders, &outbox)).await.unwrap();
        let tx = outbox.begin().await.unwrap();
        Orders.update(&tx, 1).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(events(&outbox).await, 4);
    });
}
