use outbox_sea_orm::prelude::*;

#[derive(Debug)]
enum AppError {
    Refused,
}

#[transactional_outbox]
async fn place(tx: &OutboxTransaction) -> Result<bool, AppError> {
    if tx.is_nested() { Ok(true) } else { Err(AppError::Refused) }
}

fn main() {}
