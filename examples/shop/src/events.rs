//! The messages of the services: the commands of orders, the replies of the others, and events.
//!
//! A reply has no topic of its own: it goes to the saga on the reply topic of orders. A service
//! without an output replies without a type of its own.

use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};

/// The source of the orders service.
pub const ORDERS: &str = "orders";
/// The reply topic of orders.
pub const REPLIES: &str = "orders.replies";

/// The command to stock: take a piece from the shelf.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "stock.reserve", topic = "stock", aggregate = "order")]
pub struct ReserveStock {
    /// The messages of one order arrive in order.
    #[outbox(key)]
    pub order_id: i64,
    pub product: String,
}

/// The rejection of stock: there is none.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "stock.sold-out", topic = "stock.answers")]
pub struct SoldOut {
    pub product: String,
}

/// The command to stock: put the piece back.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "stock.release", topic = "stock", aggregate = "order")]
pub struct ReleaseStock {
    #[outbox(key)]
    pub order_id: i64,
    pub product: String,
}

/// The command to payments: take the payment.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.take", topic = "payments", aggregate = "order")]
pub struct TakePayment {
    #[outbox(key)]
    pub order_id: i64,
    pub customer: String,
    /// In cents.
    pub amount: i64,
}

/// The reply of payments: the customer has paid.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.taken", topic = "payments.answers")]
pub struct PaymentTaken {
    /// The payment, in cents.
    pub amount: i64,
}

/// The rejection of payments: the customer cannot pay.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.declined", topic = "payments.answers")]
pub struct PaymentDeclined {
    /// The saga stores it as the reason of its compensation.
    pub reason: String,
}

/// The command to payments: refund the payment.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.refund", topic = "payments", aggregate = "order")]
pub struct RefundPayment {
    #[outbox(key)]
    pub order_id: i64,
    pub customer: String,
    pub amount: i64,
}

/// The command to shipping: send the parcel.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "parcel.send", topic = "shipping", aggregate = "order")]
pub struct SendParcel {
    #[outbox(key)]
    pub order_id: i64,
    pub product: String,
}

/// The event of orders at the end of an order: `order.confirmed` or `order.cancelled`.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(topic = "orders", prefix = "order", aggregate = "order")]
pub enum OrderEvent {
    /// The order will not be compensated any more.
    Confirmed {
        #[outbox(key)]
        order_id: i64,
        customer: String,
    },
    /// All steps are compensated.
    Cancelled {
        #[outbox(key)]
        order_id: i64,
        customer: String,
    },
}

/// The event of shipping: the parcel was sent.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "parcel.sent", topic = "parcels", aggregate = "order")]
pub struct ParcelSent {
    #[outbox(key)]
    pub order_id: i64,
}
