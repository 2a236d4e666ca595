use outbox_sea_orm::prelude::*;

#[transactional_outbox]
struct Orders;

fn main() {}
