use outbox_sea_orm::prelude::*;

#[saga(name = "place-order")]
struct PlaceOrder;

fn main() {}
