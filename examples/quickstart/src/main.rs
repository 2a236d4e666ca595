//! One event, from the transaction that saves it to the handler that receives it once.
#![expect(clippy::print_stdout, unreachable_pub, reason = "an example speaks to its reader")]

use outbox_sea_orm::prelude::*;
use sea_orm::{ActiveValue::Set, Database, entity::prelude::*};
use serde::{Deserialize, Serialize};
use std::{error::Error, time::Duration};

mod order {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, DeriveEntityModel)]
    #[sea_orm(table_name = "orders")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub total: i64,
    }
    impl ActiveModelBehavior for ActiveModel {}
}

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders")]
struct OrderPlaced {
    #[outbox(key)]
    order_id: i64,
    total: i64,
}

#[transactional_outbox]
async fn place_order(tx: &OutboxTransaction, total: i64) -> Result<order::Model, OutboxError> {
    let order = order::ActiveModel { total: Set(total), ..Default::default() }.insert(tx).await?;
    tx.emit(OrderPlaced { order_id: order.id, total })?;
    Ok(order) // commits the order and its event; an error would leave neither
}

async fn send_mail(event: OrderPlaced, cx: &HandlerContext) -> Result<(), DbErr> {
    println!("received {event:?} from {}", cx.message().source); // rows written with `&cx.tx` commit with the inbox row
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let db =
        Database::connect(format!("sqlite://{}/shop.db?mode=rwc", folder.path().display())).await?;
    db.get_schema_builder().register(order::Entity).apply(&db).await?;
    let outbox = Outbox::builder(db).source("shop").install().await?;

    let (publisher, subscriber) = Memory::channel();
    let relay = Relay::builder(&outbox).route("mails", topic("orders"), publisher).start().await?;
    let consumer = Consumer::builder("mails", &outbox)
        .on("send-mail", send_mail)
        .subscribe(subscriber)
        .start()
        .await?;

    place_order(&outbox, 4200).await?;

    consumer.stats().wait_for(|stats| stats.acked == 1).await?;
    relay.shutdown(Duration::from_secs(5)).await?;
    Ok(consumer.shutdown(Duration::from_secs(5)).await?)
}
