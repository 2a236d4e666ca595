use outbox_sea_orm::prelude::*;

#[transactional_outbox]
async fn place(tx: &OutboxTransaction) -> Result<i64, OutboxError> {
    let _ = tx.is_nested();
    let number: i64 = "7".parse()?;
    Ok(number)
}

fn main() {}
