#[path = "../support.rs"]
mod support;
use support::*;

#[saga(name = "place-order")]
impl PlaceOrder {
    #[step]
    #[step]
    async fn reserve(&mut self, _cx: &StepContext) -> Result<Reservation, StepError> {
        Err(StepError::abort("no"))
    }

    #[step(name = "reserve")]
    async fn again(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}

fn main() {
    let _ = PlaceOrder::saga();
}
