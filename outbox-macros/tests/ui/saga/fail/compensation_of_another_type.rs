#[path = "../support.rs"]
mod support;
use support::*;

#[saga(name = "place-order")]
impl PlaceOrder {
    #[step(compensate = release)]
    async fn reserve(&mut self, _cx: &StepContext) -> Result<Reservation, StepError> {
        Err(StepError::abort("no"))
    }

    async fn release(&mut self, _: i64, _cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}

fn main() {
    let _ = PlaceOrder::saga();
}
