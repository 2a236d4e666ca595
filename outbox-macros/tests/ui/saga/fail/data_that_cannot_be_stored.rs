use outbox_sea_orm::prelude::*;

struct PlaceOrder {
    order_id: i64,
}

#[saga(name = "place-order")]
impl PlaceOrder {
    #[step]
    async fn reserve(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        self.order_id += 1;
        Ok(())
    }
}

fn main() {}
