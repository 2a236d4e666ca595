struct Billing<R> {
    rate: R,
}
impl<R: Rate> Billing<R> {
    fn fee(&self, total: u64) -> u64 {
        self.rate.of(total)
    }
    /// Bills an order.
    async fn bill(
        &self,
        order: OrderPlaced,
        cx: &HandlerContext,
    ) -> Result<(), AppError> {
        write(&cx.tx, self.fee(order.total)).await
    }
    async fn refund(
        &self,
        order: OrderCancelled,
        _: &HandlerContext,
    ) -> Result<(), HandlerError> {
        Err(HandlerError::reject("never"))
    }
    async fn charge(
        &self,
        command: Charge,
        cx: &HandlerContext,
    ) -> Result<(), HandlerError> {
        Ok(cx.reply(Charged { order: command.order })?)
    }
}
const _: () = {
    #[allow(non_camel_case_types)]
    struct __Handler_bill<R: Rate>(::outbox_sea_orm::__private::Arc<Billing<R>>);
    #[allow(clippy::useless_conversion)]
    #[automatically_derived]
    impl<
        R: Rate,
        __Store,
    > ::outbox_sea_orm::__private::EventHandler<OrderPlaced, __Store>
    for __Handler_bill<R>
    where
        __Store: ::outbox_sea_orm::__private::Store<
            Tx = <HandlerContext as ::outbox_sea_orm::__private::ContextTx>::Tx,
        >,
        Billing<R>: ::core::marker::Send + ::core::marker::Sync + 'static,
    {
        async fn handle(
            &self,
            event: OrderPlaced,
            cx: &::outbox_sea_orm::__private::HandlerContext<
                <__Store as ::outbox_sea_orm::__private::Store>::Tx,
            >,
        ) -> ::core::result::Result<(), ::outbox_sea_orm::__private::HandlerError> {
            <Billing<R>>::bill(&self.0, event, cx)
                .await
                .map_err(::core::convert::Into::into)
        }
    }
    #[allow(non_camel_case_types)]
    struct __Handler_refund<R: Rate>(::outbox_sea_orm::__private::Arc<Billing<R>>);
    #[allow(clippy::useless_conversion)]
    #[automatically_derived]
    impl<
        R: Rate,
        __Store,
    > ::outbox_sea_orm::__private::EventHandler<OrderCancelled, __Store>
    for __Handler_refund<R>
    where
        __Store: ::outbox_sea_orm::__private::Store<
            Tx = <HandlerContext as ::outbox_sea_orm::__private::ContextTx>::Tx,
        >,
        Billing<R>: ::core::marker::Send + ::core::marker::Sync + 'static,
    {
        async fn handle(
            &self,
            event: OrderCancelled,
            cx: &::outbox_sea_orm::__private::HandlerContext<
                <__Store as ::outbox_sea_orm::__private::Store>::Tx,
            >,
        ) -> ::core::result::Result<(), ::outbox_sea_orm::__private::HandlerError> {
            <Billing<R>>::refund(&self.0, event, cx)
                .await
                .map_err(::core::convert::Into::into)
        }
    }
    #[allow(non_camel_case_types)]
    struct __Handler_charge<R: Rate>(::outbox_sea_orm::__private::Arc<Billing<R>>);
    #[allow(clippy::useless_conversion)]
    #[automatically_derived]
    impl<R: Rate, __Store> ::outbox_sea_orm::__private::EventHandler<Charge, __Store>
    for __Handler_charge<R>
    where
        __Store: ::outbox_sea_orm::__private::Store<
            Tx = <HandlerContext as ::outbox_sea_orm::__private::ContextTx>::Tx,
        >,
        Billing<R>: ::core::marker::Send + ::core::marker::Sync + 'static,
    {
        async fn handle(
            &self,
            event: Charge,
            cx: &::outbox_sea_orm::__private::HandlerContext<
                <__Store as ::outbox_sea_orm::__private::Store>::Tx,
            >,
        ) -> ::core::result::Result<(), ::outbox_sea_orm::__private::HandlerError> {
            <Billing<R>>::charge(&self.0, event, cx)
                .await
                .map_err(::core::convert::Into::into)
        }
    }
    #[automatically_derived]
    impl<R: Rate, __Store> ::outbox_sea_orm::__private::EventHandlers<__Store>
    for Billing<R>
    where
        __Store: ::outbox_sea_orm::__private::Store<
            Tx = <HandlerContext as ::outbox_sea_orm::__private::ContextTx>::Tx,
        >,
        Billing<R>: ::core::marker::Send + ::core::marker::Sync + 'static,
    {
        fn add_to(self, set: &mut ::outbox_sea_orm::__private::HandlerSet<__Store>) {
            let this = ::outbox_sea_orm::__private::Arc::new(self);
            set.on::<
                    OrderPlaced,
                    _,
                >(
                "bill-order",
                __Handler_bill::<R>(::outbox_sea_orm::__private::Arc::clone(&this)),
            );
            set.on_with::<
                    OrderCancelled,
                    _,
                >(
                "refund-order",
                ::outbox_sea_orm::__private::HandlerOptions::new()
                    .renamed_from("refund"),
                __Handler_refund::<R>(::outbox_sea_orm::__private::Arc::clone(&this)),
            );
            set.on_command_with::<
                    Charge,
                    _,
                >(
                "charge",
                ::outbox_sea_orm::__private::HandlerOptions::new()
                    .timeout(
                        ::outbox_sea_orm::__private::core::time::Duration::from_millis(
                            5000u64,
                        ),
                    ),
                __Handler_charge::<R>(::outbox_sea_orm::__private::Arc::clone(&this)),
            );
        }
    }
};
