//! Every option, and a saga that runs.

#[path = "../support.rs"]
mod support;
use outbox_sea_orm::saga::{SagaAdmin, SagaFilter, SagaState};
use std::time::Duration;
use support::*;

#[saga(name = "place-order", version = 3, deadline = "1h")]
impl PlaceOrder {
    #[step(compensate = release, retries = 5, compensate_retry(max_attempts = 2, backoff = "10ms"))]
    async fn reserve(&mut self, cx: &StepContext) -> Result<Reservation, StepError> {
        self.order_id += 1;
        Ok(Reservation { place: cx.correlation().to_owned() })
    }

    #[step(name = "gift-wrap", skip_if = |order: &PlaceOrder| order.order_id > 0)]
    async fn wrap(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        Err(StepError::abort("no paper"))
    }

    #[step(parallel = "offers", compensate = forget)]
    async fn north(&self, _cx: &StepContext) -> Result<i64, StepError> {
        Ok(self.order_id)
    }

    #[step(parallel = "offers", retry(max_attempts = 3, backoff = "10ms"))]
    async fn south(&self, _cx: &StepContext) -> Result<String, std::io::Error> {
        Ok("south".to_owned())
    }

    #[step(merge)]
    async fn choose(&mut self, (north, south): (i64, String), _cx: &StepContext) -> Result<(), StepError> {
        assert_eq!((north, south.as_str()), (8, "south"));
        Ok(())
    }

    /// A saga may be read with its neighbours.
    #[step(pivot, timeout = "30s")]
    async fn ship(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn release(&mut self, _: Reservation, _cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn forget(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    #[on_completed]
    async fn confirmed(&self, cx: &StepContext) -> Result<(), std::io::Error> {
        assert_eq!((self.order_id, cx.step()), (8, "on_completed"));
        Ok(())
    }

    #[on_compensated]
    #[on_stuck]
    async fn failed(&self, cx: &StepContext) -> Result<(), StepError> {
        panic!("{:?}", cx.reason())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let db = sea_orm::Database::connect("sqlite::memory:").await.unwrap();
    let outbox = Outbox::builder(db).source("shop").install().await.unwrap();
    let sagas = Sagas::builder(&outbox).register(PlaceOrder::saga()).start().await.unwrap();
    assert_eq!(PlaceOrder::saga().shape().steps[1].name.as_ref(), "gift-wrap");
    let tx = outbox.begin().await.unwrap();
    sagas.start(&tx, PlaceOrder { order_id: 7 }).correlation("order-7").await.unwrap();
    tx.commit().await.unwrap();
    let completed = SagaFilter { state: Some(SagaState::Completed), ..SagaFilter::default() };
    for _ in 0..1_000 {
        if outbox.sagas(&completed, None, 1).await.unwrap().len() == 1 {
            sagas.shutdown(Duration::from_secs(5)).await.unwrap();
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it is not completed: {:?}", outbox.sagas(&SagaFilter::default(), None, 1).await);
}
