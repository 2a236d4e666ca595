impl Orders {
    #[transactional_outbox(tx = self.outbox, nested)]
    pub async fn place(&self, total: i64) -> Result<order::Model, AppError> {
        place_order(tx, total).await
    }

    #[transactional_outbox(outbox = self.outbox, emit = |o| OrderPlaced::from(o))]
    async fn create(&self, txn: &DatabaseTransaction, total: i64) -> Result<order::Model, AppError> {
        order(total).insert(txn).await
    }

    #[transactional_outbox(tx = self.outbox, retry = 2)]
    fn under_async_trait<'life0, 'async_trait>(
        &'life0 self,
        name: String,
    ) -> ::core::pin::Pin<Box<dyn ::core::future::Future<Output = Result<i64, AppError>> + ::core::marker::Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            if let ::core::option::Option::Some(__ret) = ::core::option::Option::None::<Result<i64, AppError>> {
                #[allow(unreachable_code)]
                return __ret;
            }
            let __self = self;
            let name = name;
            let __ret: Result<i64, AppError> = { __self.save(tx, &name).await };
            #[allow(unreachable_code)]
            __ret
        })
    }
}
