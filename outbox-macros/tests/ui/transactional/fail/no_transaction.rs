use outbox_sea_orm::prelude::*;

#[transactional_outbox]
async fn place(id: i64) -> Result<i64, OutboxError> {
    Ok(id)
}

fn main() {}
