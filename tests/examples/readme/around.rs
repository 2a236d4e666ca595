//! The README's code around the quickstart.

use outbox_sea_orm::prelude::*;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, Database};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::{
    Done,
    shop::{AppError, ReceiptSent, receipt},
};
use outbox_sea_orm::admin::AdminStore;

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders")]
struct OrderPlaced {
    #[outbox(key)]
    order_id: i64,
    total: i64,
}

async fn send_receipt(event: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
    receipt::ActiveModel { order_id: Set(event.order_id), ..Default::default() }
        .insert(&cx.tx)
        .await?;
    cx.tx.emit(ReceiptSent { order_id: event.order_id })?;
    Ok(())
}

pub(crate) async fn tested() -> Done {
    let outbox = Outbox::builder(Database::connect("sqlite::memory:").await?).install().await?;
    let tx = outbox.begin().await?; // and your own tables
    let message = Message::for_test(&OrderPlaced { order_id: 7, total: 90 })?;
    let cx = HandlerContext::for_test(tx, message);
    send_receipt(OrderPlaced { order_id: 7, total: 90 }, &cx).await?;
    cx.tx.commit().await?;
    assert_eq!(outbox.stats().await?.pending, 1); // the event that it has emitted
    Ok(())
}

pub(crate) async fn ended(relay: Relay, consumer: Consumer, sagas: Sagas) -> Done {
    let parts = [consumer.into(), sagas.into(), relay.into()]; // ended in this order
    outbox_sea_orm::runtime::run_until_signal(parts, Duration::from_secs(10)).await?;
    Ok(())
}
