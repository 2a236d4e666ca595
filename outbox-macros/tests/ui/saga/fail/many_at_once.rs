#[path = "../support.rs"]
mod support;
use support::*;

#[saga(nam = "place-order", version = 0)]
impl PlaceOrder {
    #[step(retries = "five", timeout = "soon", pivot = true, pause)]
    fn reserve(&self, _cx: &StepContext) {}
}

fn main() {
    let _ = PlaceOrder::saga();
}
