use outbox_core::OutboxEvent;

#[derive(OutboxEvent)]
#[outbox(type = "customer.forgotten", tombstone)]
struct Forgotten {
    customer: i64,
}

#[derive(OutboxEvent)]
#[outbox(type = "customer.left", version = 2, tombstone, upcast(1 = same))]
struct Left {
    #[outbox(key)]
    customer: i64,
}

#[derive(OutboxEvent)]
#[outbox(prefix = "customer", tombstone)]
enum Customer {
    Moved,
}

fn main() {}
