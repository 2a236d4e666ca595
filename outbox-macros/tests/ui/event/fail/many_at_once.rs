use outbox_core::OutboxEvent;
use serde::Serialize;

#[derive(Serialize, OutboxEvent)]
#[outbox(prefix = "", version = 0, ttl = "soon", header("Origin" = "shop"), color = "red")]
enum OrderEvent {
    #[outbox(topic = "a b", max_attempts = 0)]
    Placed {
        #[outbox(key)]
        order_id: i64,
        #[outbox(key, header = "id")]
        customer: String,
    },
    Moved(i64, i64),
    #[outbox(type = "moved", retry(factor = 0, backoff = "1"))]
    Carried {
        #[outbox(kee)]
        order_id: i64,
    },
}

fn main() {}
