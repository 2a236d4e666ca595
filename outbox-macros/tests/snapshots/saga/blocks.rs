#[saga(name = "place-order", version = 2, deadline = "1h")]
impl PlaceOrder {
    #[step(compensate = release_stock, retries = 5)]
    async fn reserve_stock(&mut self, cx: &StepContext) -> Result<Reservation, StepError> {
        cx.tx.reserve(self.order_id).await
    }

    #[step(skip_if = |order: &PlaceOrder| !order.gift, name = "gift-wrap")]
    async fn wrap(&mut self, cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    #[step(parallel = "offers", compensate = forget)]
    async fn north(&self, cx: &StepContext) -> Result<i64, StepError> {
        Ok(1)
    }

    #[step(parallel = "offers", retry(max_attempts = 3, backoff = "1s"))]
    async fn south(&self, cx: &StepContext) -> Result<i64, StepError> {
        Ok(2)
    }

    #[step(merge)]
    async fn choose(&mut self, offers: (i64, i64), cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    #[step(pivot, timeout = "30s")]
    async fn ship(&mut self, cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn release_stock(&mut self, reservation: Reservation, cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn forget(&mut self, cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}
