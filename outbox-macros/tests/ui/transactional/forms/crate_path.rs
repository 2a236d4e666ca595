//! The framework under another name.

use crate::support::*;

mod inner {
    pub use outbox_sea_orm as renamed;
}

#[transactional_outbox(crate = inner::renamed)]
async fn place(tx: &inner::renamed::OutboxTransaction) -> Result<(), AppError> {
    tx.emit(OrderPlaced { order_id: 1 })?;
    Ok(())
}

pub(crate) fn main() {
    run(async {
        let outbox = outbox().await;
        place(&outbox).await.unwrap();
        assert_eq!(events(&outbox).await, 1);
    });
}
