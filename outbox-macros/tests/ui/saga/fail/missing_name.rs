#[path = "../support.rs"]
mod support;
use support::*;

#[saga(version = 2)]
impl PlaceOrder {
    #[step]
    async fn reserve(&mut self, _cx: &StepContext) -> Result<Reservation, StepError> {
        Err(StepError::abort("no"))
    }
}

fn main() {
    let _ = PlaceOrder::saga();
}
