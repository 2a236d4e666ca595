#[path = "../support.rs"]
mod support;
use support::*;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "payment.charge", no_key)]
struct Charge {
    amount: i64,
}

#[saga(name = "place-order")]
impl PlaceOrder {
    #[step(remote = "", timeout = "30s")]
    async fn charge(&mut self, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { amount: 1 })
    }

    #[step(source = "", timeout = "30s")]
    async fn bill(&mut self, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { amount: 1 })
    }

    #[step(remote = 7, timeout = "30s")]
    async fn ship(&mut self, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { amount: 1 })
    }
}

fn main() {
    let _ = PlaceOrder::saga();
}
