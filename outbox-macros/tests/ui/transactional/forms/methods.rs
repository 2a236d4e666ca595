//! Methods that take the transaction, with any receiver.

use crate::support::*;

#[derive(Default)]
struct Counter(i64);

impl Counter {
    #[transactional_outbox]
    async fn shared(&self, tx: &OutboxTransaction) -> Result<i64, AppError> {
        tx.emit(OrderPlaced { order_id: self.0 })?;
        Ok(self.0)
    }

    #[transactional_outbox]
    async fn unique(&mut self, tx: &OutboxTransaction) -> Result<(), AppError> {
        self.0 += 1;
        self.shared(tx).await?;
        Ok(())
    }

    #[transactional_outbox]
    async fn owned(self, tx: &OutboxTransaction) -> Result<Self, AppError> {
        self.shared(tx).await?;
        Ok(self)
    }

    #[transactional_outbox]
    async fn none(tx: &OutboxTransaction) -> Result<Self, AppError> {
        tx.emit(OrderPlaced { order_id: 0 })?;
        Ok(Self::default())
    }
}

pub(crate) fn main() {
    run(async {
        let outbox = outbox().await;
        let mut counter = Counter::none(&outbox).await.unwrap();
        send(counter.unique(&outbox)).await.unwrap();
        assert_eq!(counter.owned(&outbox).await.unwrap().0, 1);
        assert_eq!(events(&outbox).await, 3);
    });
}
