#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(topic = "payments", prefix = "payment", max_attempts = 12, crate = crate)]
#[serde(rename_all_fields = "camelCase", tag = "kind")]
pub enum PaymentEvent<T> {
    Charged {
        #[outbox(key)]
        order_id: i64,
        #[outbox(header = "tenant")]
        #[serde(skip_serializing_if = "Option::is_none")]
        tenant: Option<String>,
        content: T,
    },
    #[outbox(type = "returned", topic = "returns", ttl = "1h")]
    Refunded(#[outbox(key)] i64),
    #[outbox(no_key)]
    Paused,
}
