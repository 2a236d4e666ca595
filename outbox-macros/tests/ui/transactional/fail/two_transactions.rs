use outbox_sea_orm::prelude::*;

#[transactional_outbox]
async fn place(first: &OutboxTransaction, second: &OutboxTransaction) -> Result<bool, OutboxError> {
    Ok(first.is_nested() && second.is_nested())
}

async fn caller(outbox: &Outbox) {
    let _ = place(outbox, outbox).await;
}

fn main() {}
