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
    #[step(remote)]
    async fn charge(&mut self, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { amount: 1 })
    }

    #[step(parallel = "others", reply = Reservation)]
    async fn north(&self, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { amount: 1 })
    }

    #[step(merge, reject = Reservation, timeout = "30s")]
    async fn choose(&mut self, _: (i64,), _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { amount: 1 })
    }

    #[step(reply, timeout = "30s", reject = 7)]
    async fn ship(&mut self, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { amount: 1 })
    }
}

fn main() {
    let _ = PlaceOrder::saga();
}
