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

    #[on("refund-order", renamed_from = "refund")]
    async fn refund(&self, order: OrderCancelled, _: &HandlerContext) -> Result<(), HandlerError> {
        Err(HandlerError::reject("never"))
    }

    #[on_command("charge", timeout = "5s")]
    async fn charge(&self, command: Charge, cx: &HandlerContext) -> Result<(), HandlerError> {
        Ok(cx.reply(Charged { order: command.order })?)
    }
}
