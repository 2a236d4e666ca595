use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed")]
struct OrderPlaced;

struct Billing;

trait Bills {
    fn name(&self);
}

#[event_handler]
impl Bills for Billing {
    fn name(&self) {}
}

fn main() {
    let _ = |consumer: ConsumerBuilder<Outbox>| consumer.handlers(Billing);
}
