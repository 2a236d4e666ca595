use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed")]
struct OrderPlaced;

struct Billing;

#[event_handler]
impl Billing {
    #[on("")]
    fn bill(&self, _: &OrderPlaced) {}

    #[on("refund")]
    async fn refund(self, _: OrderPlaced, _: &HandlerContext) {}
}

fn main() {
    let _ = |consumer: ConsumerBuilder<Outbox>| consumer.handlers(Billing);
}
