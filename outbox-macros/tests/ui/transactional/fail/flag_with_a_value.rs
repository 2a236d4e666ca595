use outbox_sea_orm::prelude::*;

#[transactional_outbox(nested = true)]
async fn place(tx: &OutboxTransaction) -> Result<bool, OutboxError> {
    Ok(tx.is_nested())
}

fn main() {}
