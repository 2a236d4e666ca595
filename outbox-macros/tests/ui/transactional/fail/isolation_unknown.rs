use outbox_sea_orm::prelude::*;

#[transactional_outbox(isolation = Snapshot)]
async fn unknown(tx: &OutboxTransaction) -> Result<bool, OutboxError> {
    Ok(tx.is_nested())
}

#[transactional_outbox(isolation)]
async fn alone(tx: &OutboxTransaction) -> Result<bool, OutboxError> {
    Ok(tx.is_nested())
}

fn main() {}
