use outbox_sea_orm::prelude::*;

#[derive(serde::Serialize, OutboxEvent)]
#[outbox(type = "order.placed", no_key, encode_only)]
struct OrderPlaced;

#[transactional_outbox(read_only, emit = |()| OrderPlaced)]
async fn place(tx: &OutboxTransaction) -> Result<(), OutboxError> {
    Ok(())
}

#[transactional_outbox(nested, read_only)]
async fn look(tx: &OutboxTransaction) -> Result<(), OutboxError> {
    Ok(())
}

fn main() {}
