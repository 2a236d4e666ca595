//! Queries of the databases, to show and check them.

use crate::{
    notices::notice::{self, News},
    orders::order::{self, Status},
    payments::payment,
    service::Database,
    shipping::parcel,
    stock::{movement, shelf},
};
use outbox_sea_orm::{
    prelude::*,
    saga::{SagaAdmin, SagaFilter, SagaView},
};
use sea_orm::{
    FromQueryResult, Order, QueryOrder, QuerySelect, Statement,
    entity::prelude::*,
    sea_query::{Expr, ExprTrait, Query, SelectStatement},
};

/// Sagas that are read at once.
const PAGE: u32 = 1_000;

/// A row of `outbox_events`.
#[derive(Debug, FromQueryResult)]
pub struct EventRow {
    pub event_type: String,
    pub message_key: Option<String>,
    pub message_id: Uuid,
}

/// A row of `outbox_inbox`.
#[derive(Debug, FromQueryResult)]
pub struct InboxRow {
    pub handler: String,
    pub message_id: Uuid,
}

#[derive(FromQueryResult)]
struct Key {
    message_key: Option<String>,
}

#[derive(FromQueryResult)]
struct Count {
    n: i64,
}

/// An entry of a ledger: the order, and the booked number.
pub type Entry = (i64, i64);

/// Gives the events of a key that wait in a service's outbox: the number of an order, or the id of
/// a saga for replies.
pub async fn events_of(database: &Database, key: &str) -> Result<Vec<EventRow>, DbErr> {
    let mut ask = Query::select();
    ask.columns(["event_type", "message_key", "message_id"])
        .from(database.table("outbox_events"))
        .and_where(Expr::col("message_key").eq(key))
        .order_by("event_id", Order::Asc);
    rows(database, &ask).await
}

/// Gives the inbox rows of a message in a service.
pub async fn received(database: &Database, message: Uuid) -> Result<Vec<InboxRow>, DbErr> {
    let mut ask = Query::select();
    ask.columns(["handler", "message_id"])
        .from(database.table("outbox_inbox"))
        .and_where(Expr::col("message_id").eq(message));
    rows(database, &ask).await
}

/// Gives the key of every event that waits in a service's outbox: the number of its order, or the id of a saga.
pub async fn waiting(database: &Database) -> Result<Vec<String>, DbErr> {
    let mut ask = Query::select();
    ask.column("message_key").from(database.table("outbox_events"));
    Ok(rows::<Key>(database, &ask).await?.into_iter().filter_map(|row| row.message_key).collect())
}

/// Counts the unresolved dead letters of a service.
pub async fn dead(database: &Database) -> Result<i64, DbErr> {
    let mut ask = Query::select();
    ask.expr_as(Expr::cust("count(*)"), "n")
        .from(database.table("outbox_dead_letters"))
        .and_where(Expr::col("resolution").is_null());
    Ok(rows::<Count>(database, &ask).await?.first().map_or(0, |row| row.n))
}

/// Gives number, total and state of every order past a number.
pub async fn orders(database: &Database, since: i64) -> Result<Vec<(i64, i64, Status)>, DbErr> {
    let past = order::Entity::find().filter(order::Column::Id.gt(since));
    let chosen = past.select_only().columns([
        order::Column::Id,
        order::Column::Total,
        order::Column::Status,
    ]);
    chosen.order_by_asc(order::Column::Id).into_tuple().all(&database.observer).await
}

/// Counts the orders that have not ended yet.
pub async fn open_orders(database: &Database) -> Result<u64, DbErr> {
    let ended = order::Column::Status.is_in([Status::Shipped, Status::Cancelled]);
    order::Entity::find().filter(ended.not()).count(&database.observer).await
}

/// Gives the highest number of an order; zero where there is none.
pub async fn last_order(database: &Database) -> Result<i64, DbErr> {
    let last =
        order::Entity::find().order_by_desc(order::Column::Id).one(&database.observer).await?;
    Ok(last.map_or(0, |order| order.id))
}

/// Counts the pieces that are on the shelf.
pub async fn on_shelf(database: &Database) -> Result<i64, DbErr> {
    Ok(shelf::Entity::find().all(&database.observer).await?.iter().map(|shelf| shelf.pieces).sum())
}

/// Gives the bookings of payments for orders past a number: refunds are negative.
pub async fn payments(database: &Database, since: i64) -> Result<Vec<Entry>, DbErr> {
    let past = payment::Entity::find().filter(payment::Column::OrderId.gt(since));
    let chosen = past.select_only().columns([payment::Column::OrderId, payment::Column::Amount]);
    chosen.into_tuple().all(&database.observer).await
}

/// Gives the movements of stock for orders past a number: pieces that left the shelf are negative.
pub async fn movements(database: &Database, since: i64) -> Result<Vec<Entry>, DbErr> {
    let past = movement::Entity::find().filter(movement::Column::OrderId.gt(since));
    let chosen = past.select_only().columns([movement::Column::OrderId, movement::Column::Pieces]);
    chosen.into_tuple().all(&database.observer).await
}

/// Gives the orders past a number of which shipping has sent a parcel, once for each parcel.
pub async fn parcels(database: &Database, since: i64) -> Result<Vec<Entry>, DbErr> {
    let past = parcel::Entity::find().filter(parcel::Column::OrderId.gt(since));
    let chosen: Vec<i64> = past
        .select_only()
        .column(parcel::Column::OrderId)
        .into_tuple()
        .all(&database.observer)
        .await?;
    Ok(chosen.into_iter().map(|order| (order, 1)).collect())
}

/// Gives the notices of orders past a number.
pub async fn notices(database: &Database, since: i64) -> Result<Vec<(i64, News)>, DbErr> {
    let past = notice::Entity::find().filter(notice::Column::OrderId.gt(since));
    let chosen = past.select_only().columns([notice::Column::OrderId, notice::Column::News]);
    chosen.into_tuple().all(&database.observer).await
}

/// Gives the saga of every order past a number, by the order.
pub async fn sagas(outbox: &Outbox, since: i64) -> anyhow::Result<Vec<(i64, SagaView)>> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = outbox.sagas(&SagaFilter::default(), after, PAGE).await?;
        after = page.last().map(|saga| saga.id);
        found.extend(page.into_iter().filter_map(|saga| {
            let order = saga.correlation.strip_prefix("order-")?.parse().ok()?;
            (order > since).then_some((order, saga))
        }));
        if after.is_none() {
            return Ok(found);
        }
    }
}

async fn rows<R: FromQueryResult>(
    database: &Database,
    ask: &SelectStatement,
) -> Result<Vec<R>, DbErr> {
    R::find_by_statement(statement(database, ask)).all(&database.observer).await
}

fn statement(database: &Database, ask: &SelectStatement) -> Statement {
    ConnectionTrait::get_database_backend(&database.observer).build(ask)
}
