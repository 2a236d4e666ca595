#[path = "../support.rs"]
mod support;
use support::*;

#[saga(name = "place-order")]
impl PlaceOrder {
    #[step(parallel = "offers")]
    async fn north(&self, _cx: &StepContext) -> Result<i64, StepError> {
        Ok(1)
    }

    #[step(merge)]
    async fn choose(&mut self, _: (String,), _cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}

fn main() {
    let _ = PlaceOrder::saga();
}
