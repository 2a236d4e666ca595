impl Orders {
    pub async fn place(&self, total: i64) -> Result<order::Model, AppError> {
        let __source = &(self.outbox);
        let __scope = match ::outbox_sea_orm::__private::enter::<
            Result<order::Model, AppError>,
        >(
                ::outbox_sea_orm::__private::Transactional::__source(__source)
                    .or_current(),
                ::outbox_sea_orm::__private::Entry {
                    function: "place",
                    propagation: ::outbox_sea_orm::__private::Propagation::Nested,
                    isolation: ::core::option::Option::None,
                    read_only: false,
                },
            )
            .await
        {
            ::core::result::Result::Ok(__scope) => __scope,
            ::core::result::Result::Err(__result) => return __result,
        };
        let __result: Result<order::Model, AppError> = __scope
            .within(async {
                if let ::core::option::Option::Some(__result) = ::core::option::Option::None::<
                    Result<order::Model, AppError>,
                > {
                    return __result;
                }
                #[allow(unused_variables)]
                let tx: &::outbox_sea_orm::__private::OutboxTransaction = __scope.tx();
                place_order(tx, total).await
            })
            .await;
        __scope.finish(__result).await
    }
    async fn create(
        &self,
        txn: &DatabaseTransaction,
        total: i64,
    ) -> Result<order::Model, AppError> {
        let __scope = ::outbox_sea_orm::__private::ForeignTx::<
            Result<order::Model, AppError>,
        >::new(&(self.outbox));
        let __result: Result<order::Model, AppError> = async {
            if let ::core::option::Option::Some(__result) = ::core::option::Option::None::<
                Result<order::Model, AppError>,
            > {
                return __result;
            }
            order(total).insert(txn).await
        }
            .await;
        __scope.emit(txn, __result, |o| OrderPlaced::from(o)).await
    }
    fn under_async_trait<'life0, 'async_trait>(
        &'life0 self,
        name: String,
    ) -> ::core::pin::Pin<
        Box<
            dyn ::core::future::Future<
                Output = Result<i64, AppError>,
            > + ::core::marker::Send + 'async_trait,
        >,
    >
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            if let ::core::option::Option::Some(__ret) = ::core::option::Option::None::<
                Result<i64, AppError>,
            > {
                #[allow(unreachable_code)] return __ret;
            }
            let __self = self;
            let name = name;
            let __source = &(__self.outbox);
            let mut __retries = ::outbox_sea_orm::__private::RetryBudget::new(2u32);
            loop {
                let __scope = match ::outbox_sea_orm::__private::enter_with_retry::<
                    Result<i64, AppError>,
                >(
                        ::outbox_sea_orm::__private::Transactional::__source(__source)
                            .or_current(),
                        ::outbox_sea_orm::__private::Entry {
                            function: "under_async_trait",
                            propagation: ::outbox_sea_orm::__private::Propagation::Required,
                            isolation: ::core::option::Option::None,
                            read_only: false,
                        },
                        &mut __retries,
                    )
                    .await
                {
                    ::core::result::Result::Ok(__scope) => __scope,
                    ::core::result::Result::Err(__result) => return __result,
                };
                let __result: Result<i64, AppError> = __scope
                    .within(async {
                        if let ::core::option::Option::Some(__result) = ::core::option::Option::None::<
                            Result<i64, AppError>,
                        > {
                            return __result;
                        }
                        #[allow(unused_variables)]
                        let tx: &::outbox_sea_orm::__private::OutboxTransaction = __scope
                            .tx();
                        __self.save(tx, &name).await
                    })
                    .await;
                if let ::core::ops::ControlFlow::Break(__result) = __scope
                    .finish_or_retry(__result, &mut __retries)
                    .await
                {
                    break __result;
                }
            }
        })
    }
}
