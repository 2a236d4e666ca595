//! One order and its events, step by step. Each row that is shown was just read from a database.

use super::{Customers, Shop, WAIT_LIMIT, money, queries, until};
use crate::{
    notices::notice,
    orders::{
        NewOrder,
        order::{self, Status},
    },
    payments::payment,
    service::Service,
    shipping::parcel,
    stock::movement,
};
use anyhow::{Context, ensure};
use axum::http::StatusCode;
use outbox_sea_orm::saga::{LogEntry, SagaAdmin, SagaFilter, SagaState, SagaView};
use queries::{EventRow, InboxRow};
use sea_orm::entity::prelude::*;
use std::fmt;

/// Prints the steps. It starts each relay only when its step comes, so that the rows before it are
/// still there to be read.
pub async fn run(shop: &mut Shop, customers: &Customers) -> anyhow::Result<()> {
    println!("\nOne order, step by step; each row was just read from a database.\n");
    refused(shop, customers).await?;
    let id = placed(customers).await?;
    let command = asked(shop, id).await?;
    done_elsewhere(shop, id, &command).await?;
    carried_on(shop, id).await?;
    listened(shop, id).await
}

async fn refused(shop: &Shop, customers: &Customers) -> anyhow::Result<()> {
    step(1, "An order that fails after it was written leaves neither row nor saga.");
    let nothing = NewOrder { customer: "eve".to_owned(), total: 0, ..customers.first() };
    let answer = customers.send(&nothing).await?.status();
    ensure!(
        answer == StatusCode::UNPROCESSABLE_ENTITY,
        "an order of nothing was answered {answer}"
    );
    request(&nothing, answer)?;
    let orders = queries::orders(&shop.orders.database, shop.since).await?.len();
    row(&shop.orders, "orders", &rows_of(orders));
    let sagas = queries::sagas(&shop.orders.outbox, shop.since).await?.len();
    row(&shop.orders, "outbox_sagas", &rows_of(sagas));
    Ok(())
}

async fn placed(customers: &Customers) -> anyhow::Result<i64> {
    step(2, "An order and its saga are saved in one transaction, and the saga begins.");
    let id = customers.order(0).await?.id;
    request(&customers.first(), StatusCode::CREATED)?;
    Ok(id)
}

async fn asked(shop: &Shop, id: i64) -> anyhow::Result<EventRow> {
    let command = async || queries::events_of(&shop.orders.database, &id.to_string()).await;
    until(WAIT_LIMIT, "the saga asks stock", async || Ok(!command().await?.is_empty())).await?;
    step(
        3,
        "Each step is one transaction. The first was done here; the second asks stock: its record and the command.",
    );
    show_log(shop, id).await?;
    show_order(shop, id).await?;
    show_events(&shop.orders, &id.to_string()).await?;
    one(command().await?, "command")
}

async fn done_elsewhere(shop: &mut Shop, id: i64, command: &EventRow) -> anyhow::Result<()> {
    shop.relay_orders().await?;
    let (stock, key) = (&shop.stock, id.to_string());
    until(WAIT_LIMIT, "the command leaves the outbox", async || {
        Ok(queries::events_of(&shop.orders.database, &key).await?.is_empty())
    })
    .await?;
    let how = shop.link.wire.how();
    step(
        4,
        &format!(
            "The relay of orders has sent the command, {how}; confirmed, it leaves the outbox."
        ),
    );
    show_events(&shop.orders, &key).await?;

    step(
        5,
        "stock has done it once: inbox row, shelf, ledger and reply were saved in one transaction.",
    );
    show_receipt(stock, command).await?;
    let booked = movement::Entity::find().filter(movement::Column::OrderId.eq(id));
    for movement in booked.all(&stock.database.observer).await? {
        row(
            stock,
            "stock_movements",
            &format!("order {}  {}  {}", id, movement.product, movement.pieces),
        );
    }
    show_events(stock, &saga(shop, id).await?.id.to_string()).await
}

async fn carried_on(shop: &mut Shop, id: i64) -> anyhow::Result<()> {
    shop.relay_others().await?;
    until(WAIT_LIMIT, "the saga is completed", async || {
        Ok(saga(shop, id).await?.instance.state == SagaState::Completed)
    })
    .await?;
    step(6, "The relays of the others send the replies, and the saga goes on by them, to its end.");
    show_log(shop, id).await?;
    let booked = payment::Entity::find().filter(payment::Column::OrderId.eq(id));
    for payment in booked.all(&shop.payments.database.observer).await? {
        row(
            &shop.payments,
            "payments",
            &format!("order {}  {}  {}", id, payment.customer, money(payment.amount)),
        );
    }
    let sent = parcel::Entity::find().filter(parcel::Column::OrderId.eq(id));
    for parcel in sent.all(&shop.shipping.database.observer).await? {
        row(&shop.shipping, "parcels", &format!("order {}  {}", id, parcel.product));
    }
    Ok(())
}

async fn listened(shop: &Shop, id: i64) -> anyhow::Result<()> {
    let notices = async || {
        let of_order = notice::Entity::find().filter(notice::Column::OrderId.eq(id));
        of_order.all(&shop.shipping.database.observer).await
    };
    until(WAIT_LIMIT, "the subscribers have received it", async || {
        Ok(order(shop, id).await?.status == Status::Shipped && !notices().await?.is_empty())
    })
    .await?;
    step(
        7,
        "Events that no saga waits for: shipping received order.confirmed, and orders parcel.sent.",
    );
    for notice in notices().await? {
        row(
            &shop.shipping,
            "notices",
            &format!("order {}  {}  {}", id, notice.customer, lower(notice.news)),
        );
    }
    show_order(shop, id).await
}

/// Reads the saga of an order.
async fn saga(shop: &Shop, id: i64) -> anyhow::Result<SagaView> {
    let filter = SagaFilter { correlation: Some(format!("order-{id}")), ..SagaFilter::default() };
    one(shop.orders.outbox.sagas(&filter, None, 2).await?, "saga of the order")
}

/// Reads an order.
async fn order(shop: &Shop, id: i64) -> anyhow::Result<order::Model> {
    let found = order::Entity::find_by_id(id).one(&shop.orders.database.observer).await?;
    found.with_context(|| format!("there is no order {id}"))
}

async fn show_order(shop: &Shop, id: i64) -> anyhow::Result<()> {
    let order::Model { customer, product, total, status, .. } = order(shop, id).await?;
    let (total, status) = (money(total), lower(status));
    row(&shop.orders, "orders", &format!("id {id}  {customer}  {product}  {total}  {status}"));
    Ok(())
}

async fn show_log(shop: &Shop, id: i64) -> anyhow::Result<()> {
    for LogEntry { seq, record, .. } in
        shop.orders.outbox.saga_log(saga(shop, id).await?.id).await?
    {
        let words =
            format!("{seq:>2}  {:<12} {}", record.kind(), record.step().unwrap_or_default());
        row(&shop.orders, "outbox_saga_log", words.trim_end());
    }
    Ok(())
}

async fn show_events(service: &Service, key: &str) -> anyhow::Result<()> {
    let events = queries::events_of(&service.database, key).await?;
    if events.is_empty() {
        row(service, "outbox_events", &rows_of(0));
    }
    for EventRow { event_type, message_key, message_id } in events {
        let key = message_key.unwrap_or_default();
        row(service, "outbox_events", &format!("{event_type}  key {key}  message {message_id}"));
    }
    Ok(())
}

async fn show_receipt(service: &Service, event: &EventRow) -> anyhow::Result<()> {
    // A broker confirms before the other service has received.
    until(WAIT_LIMIT, "the message is received", async || {
        Ok(!queries::received(&service.database, event.message_id).await?.is_empty())
    })
    .await?;
    let InboxRow { handler, message_id } = one(
        queries::received(&service.database, event.message_id).await?,
        "inbox row of the message",
    )?;
    row(service, "outbox_inbox", &format!("{handler}  message {message_id}"));
    Ok(())
}

fn one<T>(mut found: Vec<T>, what: &str) -> anyhow::Result<T> {
    ensure!(found.len() == 1, "there should be one {what}, and there are {}", found.len());
    found.pop().with_context(|| format!("there is no {what}"))
}

fn step(number: u8, words: &str) {
    println!(" {number}  {words}");
}

fn request(new: &NewOrder, answer: StatusCode) -> anyhow::Result<()> {
    println!("      POST /orders {} -> {}", serde_json::to_string(new)?, answer.as_u16());
    Ok(())
}

fn row(service: &Service, table: &str, words: &str) {
    println!("      {:<9} {table:<15} {words}", service.name);
}

fn lower(word: impl fmt::Debug) -> String {
    format!("{word:?}").to_lowercase()
}

fn rows_of(n: usize) -> String {
    format!("{n} rows")
}
