//! Remote steps.

#[path = "../support.rs"]
mod support;
use outbox_sea_orm::saga::draw;
use support::*;

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "payment.charge", topic = "payments", no_key)]
struct Charge {
    amount: i64,
}

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "payment.refund", topic = "payments", no_key)]
struct Refund {
    payment: Option<i64>,
}

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.captured", no_key)]
struct PaymentCaptured {
    payment: i64,
}

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.declined", no_key)]
struct PaymentDeclined {
    reason: String,
}

#[saga(name = "place-order")]
impl PlaceOrder {
    #[step(remote = "payments", source = "/payments", reply = PaymentCaptured, reject = PaymentDeclined, timeout = "30s", compensate = refund)]
    async fn charge(&mut self, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { amount: self.order_id })
    }

    #[step(remote, timeout = "1m", compensate = forget)]
    async fn announce(&mut self, _cx: &StepContext) -> Result<Charge, std::io::Error> {
        Ok(Charge { amount: 0 })
    }

    #[step(reject = PaymentDeclined, timeout = "1m", pivot, retries = 2)]
    async fn ship(&mut self, _cx: &StepContext) -> Result<Charge, StepError> {
        Err(StepError::abort("no"))
    }

    async fn refund(&mut self, captured: Option<PaymentCaptured>, _cx: &StepContext) -> Result<Refund, StepError> {
        Ok(Refund { payment: captured.map(|captured| captured.payment) })
    }

    async fn forget(&mut self, _cx: &StepContext) -> Result<Refund, StepError> {
        Ok(Refund { payment: None })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Quotes {
    from: i64,
}

/// Remote steps and a local one at the same time.
#[saga(name = "compare")]
impl Quotes {
    #[step(parallel = "quotes", reply = PaymentCaptured, timeout = "30s", compensate = forget)]
    async fn north(&self, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { amount: self.from })
    }

    #[step(parallel = "quotes")]
    async fn own(&self, _cx: &StepContext) -> Result<i64, StepError> {
        Ok(7)
    }

    #[step(parallel = "quotes", remote, timeout = "30s")]
    async fn south(&self, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { amount: self.from })
    }

    #[step(merge)]
    async fn choose(&mut self, quotes: (PaymentCaptured, i64, ()), _cx: &StepContext) -> Result<(), StepError> {
        self.from = quotes.0.payment.min(quotes.1);
        Ok(())
    }

    async fn forget(&mut self, captured: Option<PaymentCaptured>, _cx: &StepContext) -> Result<Refund, StepError> {
        Ok(Refund { payment: captured.map(|captured| captured.payment) })
    }
}

fn main() {
    let quotes = Quotes::saga();
    assert_eq!(quotes.faults(), []);
    let of_group = quotes.shape().steps.iter().filter(|step| step.group.as_deref() == Some("quotes"));
    assert_eq!(of_group.map(|step| step.remote.is_some()).collect::<Vec<_>>(), [true, false, true]);
    let saga = PlaceOrder::saga();
    assert!(saga.faults().is_empty());
    let remote: Vec<_> = saga.shape().steps.iter().map(|step| step.remote.unwrap()).collect();
    assert_eq!((remote[0].replies[0].name, remote[0].rejects[0].name), ("payment.captured", "payment.declined"));
    assert!(remote[1].replies.is_empty() && remote[1].rejects.is_empty() && remote[2].replies.is_empty());
    assert!(draw(saga.shape()).contains("charge"));
}
