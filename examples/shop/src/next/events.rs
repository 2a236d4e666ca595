//! The changed messages of the next release.

use crate::events;
use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;

/// The currency of commands without one.
pub const EURO: &str = "EUR";
/// The carrier of a parcel.
pub const CARRIER: &str = "the mail";

/// The command to payments: take the payment, in a currency.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.take", version = 2, topic = "payments", aggregate = "order", upcast(1 = in_euros))]
pub struct TakePayment {
    #[outbox(key)]
    pub order_id: i64,
    pub customer: String,
    /// In cents.
    pub amount: i64,
    pub currency: String,
}

fn in_euros(old: events::TakePayment) -> Result<TakePayment, Infallible> {
    let events::TakePayment { order_id, customer, amount } = old;
    Ok(TakePayment { order_id, customer, amount, currency: EURO.to_owned() })
}

/// The event of shipping: the parcel was sent, with a carrier.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "parcel.sent", version = 2, topic = "parcels", aggregate = "order", upcast(1 = by_mail))]
pub struct ParcelSent {
    #[outbox(key)]
    pub order_id: i64,
    pub carrier: String,
}

fn by_mail(old: events::ParcelSent) -> Result<ParcelSent, Infallible> {
    Ok(ParcelSent { order_id: old.order_id, carrier: CARRIER.to_owned() })
}

/// The event of orders: the customer gets a gift with this order.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "gift.promised", topic = "gifts", aggregate = "order")]
pub struct GiftPromised {
    #[outbox(key)]
    pub order_id: i64,
    pub gift: String,
}
