use outbox_sea_orm::prelude::*;

#[transactional_outbox(outbox = outbox, emit = |id| *id)]
async fn place(outbox: &Outbox, db: &sea_orm::DatabaseConnection) -> Result<i64, OutboxError> {
    Ok(1)
}

fn main() {}
