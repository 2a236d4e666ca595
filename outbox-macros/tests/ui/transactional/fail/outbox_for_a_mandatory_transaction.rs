use outbox_sea_orm::prelude::*;

#[transactional_outbox(mandatory)]
async fn place(tx: &OutboxTransaction) -> Result<bool, OutboxError> {
    Ok(tx.is_nested())
}

async fn caller(outbox: &Outbox) {
    let _ = place(outbox).await;
}

fn main() {}
