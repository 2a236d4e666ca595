use outbox_sea_orm::prelude::*;

#[transactional_outbox(retry = 2, retry = 3)]
async fn place(tx: &OutboxTransaction) -> Result<bool, OutboxError> {
    Ok(tx.is_nested())
}

fn main() {}
