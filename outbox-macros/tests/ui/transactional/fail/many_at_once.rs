use outbox_sea_orm::prelude::*;

#[transactional_outbox(nested = 1, retry = 0, colour)]
fn place(id: i64) {
    let _ = id;
}

fn main() {}
