use outbox_core::OutboxEvent;

#[derive(OutboxEvent)]
enum OrderEvent {
    Placed { total: Money },
}

struct Money(i64);

fn main() {}
