struct Billing<R> {
    rate: R,
}

#[event_handler]
impl<R: Rate> Billing<R> {
    fn fee(&self, total: u64) -> u64 {
        self.rate.of(total)
    }

    /// Bills an order.
    #[on("bill-order")]
    async fn bill(&self, order: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        write(&cx.tx, self.fee(order.total)).await
    }

    #[on("refund-order")]
    async fn refund(&self, order: OrderCancelled, _: &HandlerContext) -> Result<(), HandlerError> {
        Err(HandlerError::reject("never"))
    }
}
