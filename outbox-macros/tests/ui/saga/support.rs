//! What the cases share: data and an output.

#![allow(dead_code, unused_imports)]

pub use outbox_sea_orm::prelude::*;
pub use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub struct PlaceOrder {
    pub order_id: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Reservation {
    pub place: String,
}
