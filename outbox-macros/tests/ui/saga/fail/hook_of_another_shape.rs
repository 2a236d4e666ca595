#[path = "../support.rs"]
mod support;
use support::*;

#[saga(name = "place-order")]
impl PlaceOrder {
    #[step]
    async fn reserve(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    #[on_completed]
    async fn confirmed(&self, _cx: &StepContext) -> Result<i64, StepError> {
        Ok(7)
    }
}

fn main() {
    let _ = PlaceOrder::saga();
}
