#[path = "../support.rs"]
mod support;
use support::*;

#[saga(name = "place-order")]
impl PlaceOrder {
    async fn reserve(&mut self, _cx: &StepContext) -> Result<Reservation, StepError> {
        Err(StepError::abort("no"))
    }
}

fn main() {
    let _ = PlaceOrder::saga();
}
