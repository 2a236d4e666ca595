//! The expansion is silent under lints that crates like to deny.

#![deny(warnings, missing_docs, unreachable_pub, unused_qualifications, private_bounds, private_interfaces, trivial_casts)]
#![deny(single_use_lifetimes, unused_lifetimes, missing_debug_implementations, non_local_definitions, unsafe_code)]

use outbox_core::OutboxEvent;
use serde::{Deserialize, Serialize};

mod private {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    pub(super) struct Inner(pub(super) u8);
}

/// A struct.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", version = 2, upcast(1 = step))]
pub struct OrderPlaced {
    /// Its key.
    #[outbox(key)]
    pub order_id: i64,
    inner: private::Inner,
    /// No more.
    #[deprecated]
    #[outbox(header = "old")]
    pub old: Option<String>,
}

fn step(old: serde_json::Value) -> Result<serde_json::Value, std::convert::Infallible> {
    Ok(old)
}

/// An enum.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
enum Payment<'a, T: 'a> {
    /// A variant.
    Charged {
        /// Its key.
        #[outbox(key)]
        order_id: i64,
        inner: private::Inner,
        more: std::borrow::Cow<'a, str>,
    },
    /// Another.
    Refunded(#[outbox(key)] Option<i64>),
    /// No more.
    #[deprecated]
    #[outbox(no_key)]
    Lost(T),
}

/// Readable.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
enum Refund<T> {
    /// A variant.
    #[deprecated]
    Made {
        /// No more.
        #[deprecated]
        #[outbox(key)]
        order_id: i64,
        inner: T,
    },
}

fn main() {
    #[expect(deprecated, reason = "to be made once")]
    let event = OrderPlaced { order_id: 1, inner: private::Inner(2), old: None };
    println!("{event:?}");
    let event: Payment<'_, u8> = Payment::Refunded(Some(event.inner.0.into()));
    println!("{event:?}");
    let event: Payment<'_, u8> = Payment::Charged { order_id: 1, inner: private::Inner(1), more: "a".into() };
    println!("{event:?}");
    #[expect(deprecated, reason = "to be made once")]
    let events = (Refund::Made { order_id: 1, inner: 2 }, Payment::Lost(1));
    println!("{events:?}");
}
