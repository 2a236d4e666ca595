//! What the enum says holds for its variants, unless a variant says otherwise.

use outbox_core::{
    OutboxEvent,
    event::{EventContract, EventMeta, EventType, OutboxEvent as _},
    failure::RetryPolicy,
};
use serde::Serialize;
use std::time::Duration;

#[derive(Serialize, OutboxEvent)]
#[outbox(prefix = "payment", topic = "payments", version = 3, aggregate = "account", ttl = "1h", max_attempts = 12)]
#[outbox(header("origin" = "shop", "zone" = "eu"))]
enum Payment {
    Charged {
        #[outbox(key)]
        order_id: i64,
        #[outbox(header = "zone")]
        zone: &'static str,
    },
    #[outbox(type = "returned", topic = "returns", version = 4, aggregate = "return", ttl = "2h")]
    #[outbox(retry(backoff = "500ms", give_up_after = "1d"), header("origin" = "desk"))]
    Refunded(#[outbox(key)] i64),
    #[outbox(no_key)]
    Paused,
}

fn main() {
    let common = |name| {
        EventMeta::new(name)
            .topic("payments")
            .version(3)
            .aggregate("account")
            .ttl(Duration::from_secs(60 * 60))
            .retry(RetryPolicy::default().max_attempts(12))
    };
    assert_eq!(
        Payment::Charged { order_id: 7, zone: "us" }.meta(),
        common("payment.charged").key(Some("7")).header("origin", Some("shop")).header("zone", Some("us"))
    );
    assert_eq!(
        Payment::Refunded(8).meta(),
        EventMeta::new("payment.returned")
            .topic("returns")
            .version(4)
            .aggregate("return")
            .key(Some("8"))
            .header("origin", Some("desk"))
            .header("zone", Some("eu"))
            .ttl(Duration::from_secs(2 * 60 * 60))
            .retry(
                RetryPolicy::default()
                    .backoff(Duration::from_millis(500))
                    .give_up_after(Duration::from_secs(24 * 60 * 60))
            )
    );
    assert_eq!(
        Payment::Paused.meta(),
        common("payment.paused").header("origin", Some("shop")).header("zone", Some("eu"))
    );
    let types = [("payment.charged", 3, "payments"), ("payment.returned", 4, "returns"), ("payment.paused", 3, "payments")];
    assert_eq!(Payment::TYPES, types.map(|(name, version, topic)| EventType { name, version, topic }));
}
