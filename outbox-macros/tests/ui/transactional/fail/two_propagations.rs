use outbox_sea_orm::prelude::*;

#[transactional_outbox(nested, requires_new)]
async fn place(tx: &OutboxTransaction) -> Result<bool, OutboxError> {
    Ok(tx.is_nested())
}

fn main() {}
