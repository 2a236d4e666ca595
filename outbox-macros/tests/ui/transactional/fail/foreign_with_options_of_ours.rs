use outbox_sea_orm::prelude::*;

#[transactional_outbox(outbox = outbox, emit = |id| *id, nested, retry = 2, isolation = Serializable)]
async fn place(outbox: &Outbox, txn: &sea_orm::DatabaseTransaction) -> Result<i64, OutboxError> {
    Ok(1)
}

fn main() {}
