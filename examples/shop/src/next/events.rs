//! What is said otherwise in the next release.

use crate::events;
use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;

/// The currency of all that was asked for without one.
pub const EURO: &str = "EUR";
/// Who carries what shipping sends.
pub const CARRIER: &str = "the mail";

/// Orders asks payments: let the customer pay, in a currency.
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

/// Shipping says, to whoever listens: it is on its way, with somebody.
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

/// Orders says, to whoever listens: the customer gets something with this order.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "gift.promised", topic = "gifts", aggregate = "order")]
pub struct GiftPromised {
    #[outbox(key)]
    pub order_id: i64,
    pub gift: String,
}
