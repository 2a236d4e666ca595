use outbox_sea_orm::prelude::*;

async fn hear(_: i64) {}

fn build(db: sea_orm::DatabaseConnection) {
    let _ = Outbox::builder(db).listen(Phase::AfterCommit, hear);
}

fn main() {}
