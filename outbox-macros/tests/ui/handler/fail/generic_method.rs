use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed")]
struct OrderPlaced;

struct Billing;

#[event_handler]
impl Billing {
    #[on("bill-order")]
    async fn bill<E: Send + 'static>(&self, _: E, _: &HandlerContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

fn main() {
    let _ = |consumer: ConsumerBuilder<Outbox>| consumer.handlers(Billing);
}
