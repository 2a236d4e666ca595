use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed")]
struct OrderPlaced;

struct Billing;

#[event_handler]
impl Billing {
    #[on("bill-order")]
    async fn bill(&self, order: OrderPlaced, cx: &HandlerContext) -> Result<(), HandlerError> {
        let _ = (order, cx);
        Ok(())
    }

    #[on("bill-order")]
    async fn again(&self, order: OrderPlaced, cx: &HandlerContext) -> Result<(), HandlerError> {
        let _ = (order, cx);
        Ok(())
    }
}

fn main() {
    let _ = |consumer: ConsumerBuilder<Outbox>| consumer.handlers(Billing);
}
