use outbox_sea_orm::prelude::*;

#[transactional_outbox(tx)]
async fn source() -> Result<(), OutboxError> {
    Ok(())
}

#[transactional_outbox(emit)]
async fn event(tx: &OutboxTransaction) -> Result<bool, OutboxError> {
    Ok(tx.is_nested())
}

fn main() {}
