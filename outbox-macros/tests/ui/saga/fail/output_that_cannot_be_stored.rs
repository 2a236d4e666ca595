#[path = "../support.rs"]
mod support;
use support::*;

#[saga(name = "place-order")]
impl PlaceOrder {
    #[step]
    async fn reserve(&mut self, _cx: &StepContext) -> Result<std::time::Instant, StepError> {
        Err(StepError::abort("no"))
    }
}

fn main() {
    let _ = PlaceOrder::saga();
}
