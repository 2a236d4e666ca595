use outbox_sea_orm::prelude::*;

#[transactional_outbox]
fn place(tx: &OutboxTransaction, id: i64) -> Result<i64, OutboxError> {
    tx.emit(id)?;
    Ok(id)
}

async fn caller(outbox: &Outbox) {
    let _ = place(outbox, 1).await;
}

fn main() {}
