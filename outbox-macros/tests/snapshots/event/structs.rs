#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", version = 2, topic = "orders", aggregate = "order", crate = outbox_core)]
#[outbox(header("origin" = "shop"), retry(max_attempts = 3, backoff = "1s", factor = 2, max_backoff = "2s"), ttl = "7d")]
#[outbox(upcast(1 = v1_to_v2))]
pub struct OrderPlaced {
    #[outbox(key)]
    pub order_id: i64,
    #[outbox(header = "tenant")]
    pub tenant: Option<String>,
    pub total: i64,
}

#[derive(Serialize, OutboxEvent)]
#[outbox(type = "note.taken", crate = outbox_core)]
struct Note<'a, T>(#[outbox(key)] &'a str, T);
