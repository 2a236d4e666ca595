use outbox_sea_orm::prelude::*;

#[transactional_outbox(tx = outbox)]
async fn place(outbox: &Outbox, tx: &OutboxTransaction) -> Result<bool, OutboxError> {
    Ok(tx.is_nested())
}

fn main() {}
