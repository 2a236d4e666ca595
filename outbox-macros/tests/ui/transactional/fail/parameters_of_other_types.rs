use outbox_sea_orm::prelude::*;

#[transactional_outbox]
async fn of_seaorm(txn: &sea_orm::DatabaseTransaction) -> Result<(), OutboxError> {
    Ok(())
}

#[transactional_outbox]
async fn the_outbox(outbox: &Outbox) -> Result<(), OutboxError> {
    Ok(())
}

#[transactional_outbox]
async fn either(tx: &dyn Transactional) -> Result<(), OutboxError> {
    Ok(())
}

#[transactional_outbox]
async fn a_connection(db: &sea_orm::DatabaseConnection) -> Result<(), OutboxError> {
    Ok(())
}

fn main() {}
