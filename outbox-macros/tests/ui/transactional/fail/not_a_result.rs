use outbox_sea_orm::prelude::*;

#[transactional_outbox]
async fn place(tx: &OutboxTransaction) -> Option<bool> {
    Some(tx.is_nested())
}

fn main() {}
