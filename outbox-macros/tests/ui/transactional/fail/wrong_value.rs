use outbox_sea_orm::prelude::*;

#[transactional_outbox]
async fn place(tx: &OutboxTransaction) -> Result<i64, OutboxError> {
    let _ = tx.is_nested();
    Ok("text")
}

#[transactional_outbox]
async fn nothing(tx: &OutboxTransaction) -> Result<i64, OutboxError> {
    let _ = tx.is_nested();
}

fn main() {}
