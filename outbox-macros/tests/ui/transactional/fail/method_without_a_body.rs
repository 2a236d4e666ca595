use outbox_sea_orm::prelude::*;

trait Repo {
    #[transactional_outbox]
    async fn save(&self, tx: &OutboxTransaction) -> Result<(), OutboxError>;
}

fn main() {}
