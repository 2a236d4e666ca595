//! Notices to customers, by subscribing to the events of orders.

use crate::events::OrderEvent;
use outbox_sea_orm::prelude::*;
use sea_orm::{ActiveValue::Set, entity::prelude::*};

/// The notices of customers.
pub mod notice {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "shop_notices")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub order_id: i64,
        pub customer: String,
        pub news: News,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
    #[sea_orm(rs_type = "String", db_type = "String(StringLen::N(16))", rename_all = "lowercase")]
    pub enum News {
        Confirmed,
        Cancelled,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// Notifies a customer how the order has ended, once.
pub async fn tell_customer(event: OrderEvent, cx: &HandlerContext) -> Result<(), HandlerError> {
    let (order_id, customer, news) = match event {
        OrderEvent::Confirmed { order_id, customer } => {
            (order_id, customer, notice::News::Confirmed)
        }
        OrderEvent::Cancelled { order_id, customer } => {
            (order_id, customer, notice::News::Cancelled)
        }
    };
    if customer.is_empty() {
        return Err(HandlerError::reject("a notice needs a customer with a name"));
    }
    let notice = notice::ActiveModel {
        order_id: Set(order_id),
        customer: Set(customer),
        news: Set(news),
        ..Default::default()
    };
    notice.insert(&cx.tx).await?;
    Ok(())
}
