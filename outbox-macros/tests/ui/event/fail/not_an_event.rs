struct OrderPlaced;

fn emit(_: impl outbox_core::event::OutboxEvent) {}

fn main() {
    emit(OrderPlaced);
}
