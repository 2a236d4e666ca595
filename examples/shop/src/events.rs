//! What the services say to each other: what orders asks the others to do, what they answer, and what has happened.
//!
//! An answer is no event of its own topic: it goes back to the saga that asked, on the topic that orders named. A service
//! that has nothing to add to "done" answers without a type of its own.

use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};

/// The orders service, as its messages name it.
pub const ORDERS: &str = "orders";
/// The topic on which orders hears the answers.
pub const REPLIES: &str = "orders.replies";

/// Orders asks stock: take a piece from the shelf.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "stock.reserve", topic = "stock", aggregate = "order")]
pub struct ReserveStock {
    /// What is said of one order arrives in its order.
    #[outbox(key)]
    pub order_id: i64,
    pub product: String,
}

/// Stock answers: there is none.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "stock.sold-out", topic = "stock.answers")]
pub struct SoldOut {
    pub product: String,
}

/// Orders asks stock: put it back.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "stock.release", topic = "stock", aggregate = "order")]
pub struct ReleaseStock {
    #[outbox(key)]
    pub order_id: i64,
    pub product: String,
}

/// Orders asks payments: let the customer pay.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.take", topic = "payments", aggregate = "order")]
pub struct TakePayment {
    #[outbox(key)]
    pub order_id: i64,
    pub customer: String,
    /// In cents.
    pub amount: i64,
}

/// Payments answers: the customer has paid.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.taken", topic = "payments.answers")]
pub struct PaymentTaken {
    /// What was taken, in cents.
    pub amount: i64,
}

/// Payments answers: the customer cannot.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.declined", topic = "payments.answers")]
pub struct PaymentDeclined {
    /// The saga keeps it as the reason for which it turned back.
    pub reason: String,
}

/// Orders asks payments: give it back.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.refund", topic = "payments", aggregate = "order")]
pub struct RefundPayment {
    #[outbox(key)]
    pub order_id: i64,
    pub customer: String,
    pub amount: i64,
}

/// Orders asks shipping: send the parcel.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "parcel.send", topic = "shipping", aggregate = "order")]
pub struct SendParcel {
    #[outbox(key)]
    pub order_id: i64,
    pub product: String,
}

/// Orders says, to whoever listens, how an order has ended: `order.confirmed` or `order.cancelled`.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(topic = "orders", prefix = "order", aggregate = "order")]
pub enum OrderEvent {
    /// Nothing will be undone any more.
    Confirmed {
        #[outbox(key)]
        order_id: i64,
        customer: String,
    },
    /// All that was done is undone.
    Cancelled {
        #[outbox(key)]
        order_id: i64,
        customer: String,
    },
}

/// Shipping says, to whoever listens: it is on its way.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "parcel.sent", topic = "parcels", aggregate = "order")]
pub struct ParcelSent {
    #[outbox(key)]
    pub order_id: i64,
}
