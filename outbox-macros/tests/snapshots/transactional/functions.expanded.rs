pub async fn place_order(
    tx: &(dyn ::outbox_sea_orm::__private::Transactional + '_),
    cmd: PlaceOrder,
) -> Result<order::Model, AppError> {
    let __scope = match ::outbox_sea_orm::__private::enter::<
        Result<order::Model, AppError>,
    >(
            ::outbox_sea_orm::__private::Transactional::__source(tx),
            ::outbox_sea_orm::__private::Entry {
                function: "place_order",
                propagation: ::outbox_sea_orm::__private::Propagation::Required,
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
            let tx: &OutboxTransaction = __scope.tx();
            let order = cmd.into_order().insert(tx).await?;
            tx.emit(OrderPlaced::from(&order))?;
            Ok(order)
        })
        .await;
    __scope.finish(__result).await
}
async fn transfer<'a>(
    tx: &'a (dyn ::outbox_sea_orm::__private::Transactional + 'a),
    name: &'a str,
) -> anyhow::Result<order::Model> {
    let mut __retries = ::outbox_sea_orm::__private::RetryBudget::new(3u32);
    loop {
        let __scope = match ::outbox_sea_orm::__private::enter_with_retry::<
            anyhow::Result<order::Model>,
        >(
                ::outbox_sea_orm::__private::Transactional::__source(tx),
                ::outbox_sea_orm::__private::Entry {
                    function: "transfer",
                    propagation: ::outbox_sea_orm::__private::Propagation::Required,
                    isolation: ::core::option::Option::Some(
                        ::outbox_sea_orm::__private::IsolationLevel::Serializable,
                    ),
                    read_only: false,
                },
                &mut __retries,
            )
            .await
        {
            ::core::result::Result::Ok(__scope) => __scope,
            ::core::result::Result::Err(__result) => return __result,
        };
        let __result: anyhow::Result<order::Model> = __scope
            .within(async {
                if let ::core::option::Option::Some(__result) = ::core::option::Option::None::<
                    anyhow::Result<order::Model>,
                > {
                    return __result;
                }
                let tx: &OutboxTransaction = __scope.tx();
                find(tx, name).await
            })
            .await;
        let __result = __scope.emit(__result, |order| OrderPlaced::from(order));
        if let ::core::ops::ControlFlow::Break(__result) = __scope
            .finish_or_retry(__result, &mut __retries)
            .await
        {
            break __result;
        }
    }
}
async fn inside(tx: &OutboxTransaction) -> Result<impl Display, DbErr> {
    let __scope = match ::outbox_sea_orm::__private::enter::<
        _,
    >(
            ::outbox_sea_orm::__private::Transactional::__source(tx),
            ::outbox_sea_orm::__private::Entry {
                function: "inside",
                propagation: ::outbox_sea_orm::__private::Propagation::Mandatory,
                isolation: ::core::option::Option::None,
                read_only: false,
            },
        )
        .await
    {
        ::core::result::Result::Ok(__scope) => __scope,
        ::core::result::Result::Err(__result) => return __result,
    };
    let __result = __scope
        .within(async {
            let tx: &OutboxTransaction = __scope.tx();
            Ok(1)
        })
        .await;
    __scope.finish(__result).await
}
