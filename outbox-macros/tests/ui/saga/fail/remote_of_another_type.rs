#[path = "../support.rs"]
mod support;
use support::*;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "payment.charge", no_key)]
struct Charge {
    amount: i64,
}

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.captured", no_key)]
struct PaymentCaptured {
    payment: i64,
}

#[saga(name = "place-order")]
impl PlaceOrder {
    #[step(reply = PaymentCaptured, timeout = "30s", compensate = refund)]
    async fn charge(&mut self, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { amount: 1 })
    }

    #[step(reply = Reservation, timeout = "30s")]
    async fn reserve(&mut self, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { amount: 1 })
    }

    #[step(remote, timeout = "30s")]
    async fn ship(&mut self, _cx: &StepContext) -> Result<i64, StepError> {
        Ok(7)
    }

    async fn refund(&mut self, _: PaymentCaptured, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { amount: -1 })
    }
}

fn main() {
    let _ = PlaceOrder::saga();
}
