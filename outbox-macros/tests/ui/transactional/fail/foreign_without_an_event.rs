use outbox_sea_orm::prelude::*;

#[transactional_outbox(outbox = outbox)]
async fn place(outbox: &Outbox, txn: &sea_orm::DatabaseTransaction) -> Result<(), OutboxError> {
    Ok(())
}

fn main() {}
