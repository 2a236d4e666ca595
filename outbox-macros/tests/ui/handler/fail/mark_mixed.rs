use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.charge")]
struct Charge;

struct Payments;

#[event_handler]
impl Payments {
    #[on("hear-charge")]
    #[on_command("charge")]
    async fn charge(&self, command: Charge, cx: &HandlerContext) -> Result<(), HandlerError> {
        let _ = (command, cx);
        Ok(())
    }
}

fn main() {
    let _ = |consumer: ConsumerBuilder<Outbox>| consumer.handlers(Payments);
}
