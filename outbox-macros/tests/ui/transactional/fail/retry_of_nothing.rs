use outbox_sea_orm::prelude::*;

#[transactional_outbox(retry = 0)]
async fn zero(tx: &OutboxTransaction) -> Result<bool, OutboxError> {
    Ok(tx.is_nested())
}

#[transactional_outbox(retry = "often")]
async fn text(tx: &OutboxTransaction) -> Result<bool, OutboxError> {
    Ok(tx.is_nested())
}

#[transactional_outbox(retry)]
async fn alone(tx: &OutboxTransaction) -> Result<bool, OutboxError> {
    Ok(tx.is_nested())
}

fn main() {}
