#[path = "../support.rs"]
mod support;
use support::*;

#[saga(name = "place-order")]
impl PlaceOrder {
    #[step(pivot)]
    async fn reserve(&mut self, _cx: &StepContext) -> Result<Reservation, StepError> {
        Err(StepError::abort("no"))
    }

    #[step(compensate = call_back)]
    async fn ship(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn call_back(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}

fn main() {
    let _ = PlaceOrder::saga();
}
