#[path = "../support.rs"]
mod support;
use support::*;

#[saga(name = "place-order")]
impl PlaceOrder {
    #[step]
    #[on_stuck]
    async fn reserve(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    #[on_completed]
    async fn confirmed(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    #[on_completed]
    async fn confirmed_too(&self, _cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    #[on_compensated(reason)]
    fn cancelled(&self) {}
}

fn main() {
    let _ = PlaceOrder::saga();
}
