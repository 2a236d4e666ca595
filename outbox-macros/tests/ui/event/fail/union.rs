use outbox_core::OutboxEvent;

#[derive(OutboxEvent)]
#[outbox(type = "order.placed")]
union OrderPlaced {
    order_id: i64,
}

fn main() {}
