//! The changes of the next release of the shop. Instances of both releases run side by side during
//! a rollout, on the same databases and queues; those of this release store messages that only the
//! next one handles.
//!
//! An order's saga has another version, which promises a gift: a new type on a new topic, which
//! goes to shipping by a route of its own. The command for a payment has a currency, and the event
//! of a parcel its carrier: both have version 2 now. The handler that notifies customers has
//! another name.

mod events;
mod saga;

pub use events::{GiftPromised, ParcelSent, TakePayment};
pub use saga::PlaceOrder;

/// The topic of gifts, which no service of the present release publishes or subscribes to.
pub const GIFTS: &str = "gifts";

use crate::{
    events::{PaymentDeclined, PaymentTaken, SendParcel},
    orders, payments, shipping,
};
use outbox_sea_orm::{consumer::HandlerOptions, prelude::*};
use sea_orm::{ActiveValue::Set, entity::prelude::*};

/// The gifts. The table permits two gifts for one order.
pub mod gift {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "shop_gifts")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub order_id: i64,
        pub gift: String,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// The name in this release of the handler that notifies customers.
pub const NOTIFY: HandlerOptions = HandlerOptions::new().renamed_from("tell-customer");

/// Books a payment, whose command may be of either version.
pub async fn take_payment(command: TakePayment, cx: &HandlerContext) -> Result<(), HandlerError> {
    let TakePayment { order_id, customer, amount, currency } = command;
    if currency != events::EURO {
        cx.reject(PaymentDeclined { reason: format!("no payments in {currency}") })?;
        return Ok(());
    }
    if amount > payments::CREDIT {
        cx.reject(PaymentDeclined { reason: "over the credit limit".to_owned() })?;
        return Ok(());
    }
    payments::book(order_id, customer, amount, cx).await?;
    cx.reply(PaymentTaken { amount })?;
    Ok(())
}

/// Sends a parcel, and emits its event with the carrier.
pub async fn send_parcel(command: SendParcel, cx: &HandlerContext) -> Result<(), HandlerError> {
    let order_id = shipping::send(command, cx).await?;
    cx.tx.emit(ParcelSent { order_id, carrier: events::CARRIER.to_owned() })?;
    Ok(())
}

/// Marks an order as shipped, by the event of either release of shipping.
pub async fn note_shipped(event: ParcelSent, cx: &HandlerContext) -> Result<(), HandlerError> {
    orders::shipped(event.order_id, cx).await
}

/// Sends the gift that was promised with an order.
pub async fn send_gift(event: GiftPromised, cx: &HandlerContext) -> Result<(), HandlerError> {
    let gift = gift::ActiveModel {
        order_id: Set(event.order_id),
        gift: Set(event.gift),
        ..Default::default()
    };
    gift.insert(&cx.tx).await?;
    Ok(())
}
