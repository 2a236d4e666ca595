use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", no_key)]
struct OrderPlaced;

async fn bill(_: OrderPlaced, _: &HandlerContext) -> Result<u32, HandlerError> {
    Ok(7)
}

fn main() {
    let _ = |outbox: &Outbox| Consumer::builder("billing", outbox).on("bill", bill);
}
