use outbox_core::OutboxEvent;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, OutboxEvent)]
#[serde(into = "Masked")]
enum Payment {
    Charged {
        #[outbox(key)]
        order_id: i64,
        card: String,
    },
}

#[derive(Serialize)]
struct Masked {
    order_id: i64,
}

impl From<Payment> for Masked {
    fn from(Payment::Charged { order_id, .. }: Payment) -> Self {
        Self { order_id }
    }
}

#[derive(Serialize, Deserialize, OutboxEvent)]
#[serde(rename_all = "camelCase", try_from = "i64")]
enum Positive {
    Amount(i64),
}

impl TryFrom<i64> for Positive {
    type Error = &'static str;

    fn try_from(amount: i64) -> Result<Self, Self::Error> {
        if amount > 0 { Ok(Self::Amount(amount)) } else { Err("not positive") }
    }
}

#[derive(Serialize, OutboxEvent)]
#[serde(remote = "Positive")]
enum Other {
    Amount(i64),
}

fn main() {}
