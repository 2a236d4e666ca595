use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", no_key)]
struct OrderPlaced;

async fn bill(_: OrderPlaced, _: &HandlerContext) {}

fn main() {
    let _ = |outbox: &Outbox| Consumer::builder("billing", outbox).on("bill", bill);
}
