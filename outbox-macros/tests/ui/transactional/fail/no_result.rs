use outbox_sea_orm::prelude::*;

#[transactional_outbox]
async fn place(tx: &OutboxTransaction) {
    let _ = tx.is_nested();
}

fn main() {}
