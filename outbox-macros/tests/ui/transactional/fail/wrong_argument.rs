use outbox_sea_orm::prelude::*;

#[transactional_outbox]
async fn place(tx: &OutboxTransaction) -> Result<bool, OutboxError> {
    Ok(tx.is_nested())
}

async fn caller(db: &sea_orm::DatabaseConnection, txn: &sea_orm::DatabaseTransaction) {
    let _ = place(db).await;
    let _ = place(txn).await;
}

fn main() {}
