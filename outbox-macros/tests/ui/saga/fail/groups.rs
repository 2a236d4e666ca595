#[path = "../support.rs"]
mod support;
use support::*;

#[saga(name = "place-order")]
impl PlaceOrder {
    #[step(merge)]
    async fn choose(&mut self, _: (i64,), _cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    #[step(parallel = "offers", pivot)]
    async fn north(&mut self, _cx: &StepContext) -> Result<i64, StepError> {
        Ok(1)
    }

    #[step]
    async fn reserve(&mut self, _cx: &StepContext) -> Result<Reservation, StepError> {
        Err(StepError::abort("no"))
    }

    #[step(parallel = "offers")]
    async fn south(&self, _cx: &StepContext) -> Result<i64, StepError> {
        Ok(1)
    }
}

fn main() {
    let _ = PlaceOrder::saga();
}
