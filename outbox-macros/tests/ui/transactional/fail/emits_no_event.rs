use outbox_sea_orm::prelude::*;

struct Note;

#[transactional_outbox(emit = |_| Note)]
async fn place(tx: &OutboxTransaction) -> Result<bool, OutboxError> {
    Ok(tx.is_nested())
}

fn main() {}
