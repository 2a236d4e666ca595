//! The stock service: it keeps the stock of products, and a ledger of its movements.

use crate::{
    events::{ORDERS, REPLIES, ReleaseStock, ReserveStock, SoldOut},
    service::{Database, Service, Wire},
};
use outbox_sea_orm::prelude::*;
use sea_orm::{
    ActiveValue::Set,
    entity::prelude::*,
    sea_query::{Expr, ExprTrait},
};

/// The products of the shop.
const PRODUCTS: [&str; 4] = ["chair", "desk", "lamp", "shelf"];
/// The initial pieces of each.
const PIECES: i64 = 1_000_000;

/// The stock. It does not record the order of a piece: saga and inbox ensure that each order takes
/// one.
pub mod shelf {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "shop_shelf")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub product: String,
        pub pieces: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// The ledger: pieces that leave the shelf are negative, pieces that come back positive.
pub mod movement {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "shop_stock_movements")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub order_id: i64,
        pub product: String,
        pub pieces: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// Counts the initial pieces.
pub fn stocked() -> i64 {
    PRODUCTS.iter().map(|_| PIECES).sum()
}

/// Takes a piece from the shelf. Stock, ledger, inbox row and reply commit together, or not at all.
async fn reserve_stock(command: ReserveStock, cx: &HandlerContext) -> Result<(), HandlerError> {
    let ReserveStock { order_id, product } = command;
    if !move_pieces(order_id, &product, -1, cx).await? {
        cx.reject(SoldOut { product })?;
    }
    Ok(()) // without a reply of its own, the saga receives the default one: done
}

/// Puts a piece back. It runs only where one was taken, whichever commands and replies were lost.
async fn release_stock(command: ReleaseStock, cx: &HandlerContext) -> Result<(), HandlerError> {
    move_pieces(command.order_id, &command.product, 1, cx).await?;
    Ok(())
}

/// Changes the stock and writes the ledger; `false`, with nothing done, where the shelf does not
/// have so many.
async fn move_pieces(
    order_id: i64,
    product: &str,
    pieces: i64,
    cx: &HandlerContext,
) -> Result<bool, DbErr> {
    let after = || Expr::col(shelf::Column::Pieces).add(pieces);
    let shelf = shelf::Entity::update_many().col_expr(shelf::Column::Pieces, after());
    let with_enough = shelf.filter(shelf::Column::Product.eq(product)).filter(after().gte(0));
    if with_enough.exec(&cx.tx).await?.rows_affected == 0 {
        return Ok(false);
    }
    let movement = movement::ActiveModel {
        order_id: Set(order_id),
        product: Set(product.to_owned()),
        pieces: Set(pieces),
        ..Default::default()
    };
    movement.insert(&cx.tx).await?;
    Ok(true)
}

/// Creates the tables, and inserts the products that are missing.
async fn set_up(database: &Database) -> anyhow::Result<()> {
    database.create_table(movement::Entity).await?;
    database.create_table(shelf::Entity).await?;
    for product in PRODUCTS {
        if shelf::Entity::find_by_id(product).one(&database.pool).await?.is_none() {
            let new = shelf::ActiveModel { product: Set(product.to_owned()), pieces: Set(PIECES) };
            new.insert(&database.pool).await?;
        }
    }
    Ok(())
}

/// Starts the service, without its relay.
pub async fn start(database: Database, wire: &Wire) -> anyhow::Result<Service> {
    set_up(&database).await?;
    let outbox = database.outbox("stock").install().await?;
    let (events, subscriber) = wire.receive("stock")?;
    let consumer = Consumer::builder("stock", &outbox)
        .on_command("reserve-stock", reserve_stock)
        .on_command("release-stock", release_stock)
        .commands_from(ORDERS, REPLIES)
        .subscribe(subscriber);
    Service::start("stock", outbox, database, consumer, events).await
}
