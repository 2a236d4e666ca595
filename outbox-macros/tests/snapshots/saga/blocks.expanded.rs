impl PlaceOrder {
    async fn reserve_stock(
        &mut self,
        cx: &StepContext,
    ) -> Result<Reservation, StepError> {
        cx.tx.reserve(self.order_id).await
    }
    async fn wrap(&mut self, cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
    async fn north(&self, cx: &StepContext) -> Result<i64, StepError> {
        Ok(1)
    }
    async fn south(&self, cx: &StepContext) -> Result<i64, StepError> {
        Ok(2)
    }
    async fn choose(
        &mut self,
        offers: (i64, i64),
        cx: &StepContext,
    ) -> Result<(), StepError> {
        Ok(())
    }
    async fn ship(&mut self, cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
    async fn release_stock(
        &mut self,
        reservation: Reservation,
        cx: &StepContext,
    ) -> Result<(), StepError> {
        Ok(())
    }
    async fn forget(&mut self, cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}
impl ::outbox_sea_orm::__private::SagaData<
    ::outbox_sea_orm::__private::OutboxTransaction,
> for PlaceOrder {
    fn saga() -> ::outbox_sea_orm::__private::Saga<
        Self,
        ::outbox_sea_orm::__private::OutboxTransaction,
    > {
        ::outbox_sea_orm::__private::Saga::builder("place-order", 2u32)
            .deadline(
                ::outbox_sea_orm::__private::core::time::Duration::from_millis(
                    3600000u64,
                ),
            )
            .step("reserve-stock", Self::reserve_stock)
            .compensate(Self::release_stock)
            .retries(5u32)
            .step("gift-wrap", Self::wrap)
            .skip_if(|order: &PlaceOrder| !order.gift)
            .parallel("offers")
            .branch("north", Self::north)
            .compensate_without_output(Self::forget)
            .branch("south", Self::south)
            .retry(
                <::outbox_sea_orm::__private::RetryPolicy as ::outbox_sea_orm::__private::core::default::Default>::default()
                    .max_attempts(3u32)
                    .backoff(
                        ::outbox_sea_orm::__private::core::time::Duration::from_millis(
                            1000u64,
                        ),
                    ),
            )
            .merge("choose", Self::choose)
            .step("ship", Self::ship)
            .timeout(
                ::outbox_sea_orm::__private::core::time::Duration::from_millis(30000u64),
            )
            .pivot()
            .build()
    }
}
