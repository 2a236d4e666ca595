//! The transaction comes from an expression.

use std::sync::Arc;
use crate::support::*;

struct Orders {
    outbox: Outbox,
    shared: Arc<Outbox>,
    placed: u32,
}

impl Orders {
    fn lent(&self) -> &Outbox {
        &self.outbox
    }

    #[transactional_outbox(tx = self.outbox)]
    async fn place(&self, order_id: i64) -> Result<(), AppError> {
        tx.emit(OrderPlaced { order_id })?;
        Ok(())
    }

    #[transactional_outbox(tx = self.shared)]
    async fn of_an_arc(&self) -> Result<(), AppError> {
        tx.emit(OrderPlaced { order_id: 1 })?;
        Ok(())
    }

    #[transactional_outbox(tx = self.lent())]
    async fn of_a_method(&self) -> Result<(), AppError> {
        tx.emit(OrderPlaced { order_id: 1 })?;
        Ok(())
    }

    #[transactional_outbox(tx = self.outbox.clone())]
    async fn of_a_value(&mut self) -> Result<(), AppError> {
        self.placed += 1;
        tx.emit(OrderPlaced { order_id: 1 })?;
        Ok(())
    }
}

#[transactional_outbox(tx = source)]
async fn of_a_parameter(source: &dyn Transactional, order_id: i64) -> Result<(), AppError> {
    tx.emit(OrderPlaced { order_id })?;
    Ok(())
}

pub(crate) fn main() {
    run(async {
        let outbox = outbox().await;
        let mut orders = Orders { outbox: outbox.clone(), shared: Arc::new(outbox.clone()), placed: 0 };
        send(orders.place(1)).await.unwrap();
        orders.of_an_arc().await.unwrap();
        orders.of_a_method().await.unwrap();
        orders.of_a_value().await.unwrap();
        of_a_parameter(&outbox, 1).await.unwrap();
        assert_eq!((events(&outbox).await, orders.placed), (5, 1));
    });
}
