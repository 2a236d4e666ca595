use outbox_sea_orm::prelude::*;

async fn place(outbox: &Outbox, db: &sea_orm::DatabaseConnection, event: impl OutboxEvent) {
    let _ = outbox.enqueue(db, &event).await;
    let _ = outbox.enqueue(outbox, &event).await;
}

fn main() {}
