use outbox_sea_orm::prelude::*;

#[transactional_outbox(retry = 3)]
async fn place(tx: &OutboxTransaction, note: String) -> Result<Vec<u8>, OutboxError> {
    let _ = tx.is_nested();
    Ok(note.into_bytes())
}

fn main() {}
