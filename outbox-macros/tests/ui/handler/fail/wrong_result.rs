use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed")]
struct OrderPlaced;

struct Billing;

#[event_handler]
impl Billing {
    #[on("bill-order")]
    async fn bill(&self, _: OrderPlaced, _: &HandlerContext) -> Result<u32, HandlerError> {
        Ok(1)
    }
}

fn main() {
    let _ = |consumer: ConsumerBuilder<Outbox>| consumer.handlers(Billing);
}
