//! Many handlers of one type: with dependencies, generic, with several errors, beside methods that are none.

use outbox_sea_orm::{
    consumer::{Consumer, HandlerError},
    prelude::{HandlerContext, Memory, Outbox, OutboxEvent, event_handler},
};
use sea_orm::ConnectionTrait;
use serde::{Deserialize, Serialize};
use std::{fmt::Display, time::Duration};

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", version = 2, upcast(1 = placed_v1))]
struct OrderPlaced {
    id: i64,
    cents: i64,
}

#[derive(Deserialize)]
struct PlacedV1 {
    id: i64,
    euros: i64,
}

fn placed_v1(old: PlacedV1) -> Result<OrderPlaced, std::convert::Infallible> {
    Ok(OrderPlaced { id: old.id, cents: old.euros * 100 })
}

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(prefix = "order")]
enum OrderEvent {
    Cancelled(i64),
    Lost,
}

struct Billing<P> {
    prefix: P,
}

#[event_handler]
impl<P: Display + Send + Sync + 'static> Billing<P> {
    fn text(&self, what: &str, id: i64) -> String {
        format!("INSERT INTO bills (bill) VALUES ('{} {what} {id}')", self.prefix)
    }

    /// Its error is the database's.
    #[on("bill-order")]
    async fn bill(&self, order: OrderPlaced, cx: &HandlerContext) -> Result<(), sea_orm::DbErr> {
        cx.tx.execute_unprepared(&self.text("bill", order.id * 10_000 + order.cents)).await?;
        Ok(())
    }

    #[on("count-order", renamed_from = "count")]
    pub async fn count(&self, OrderPlaced { id, .. }: OrderPlaced, cx: &HandlerContext) -> Result<(), HandlerError> {
        cx.tx.execute_unprepared(&self.text("count", id)).await?;
        Ok(())
    }

    #[on("follow-order")]
    async fn follow(&self, event: OrderEvent, cx: &HandlerContext) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let id = match event {
            OrderEvent::Cancelled(id) => id,
            OrderEvent::Lost => return Err("no id".into()),
        };
        cx.tx.execute_unprepared(&self.text(cx.handler(), id)).await?;
        Ok(())
    }
}

/// Handles commands of sagas, beside a handler that takes them as events.
struct Payments;

#[event_handler]
impl Payments {
    #[on_command("count-for-a-saga", timeout = "10s")]
    async fn count(&self, order: OrderPlaced, cx: &HandlerContext) -> Result<(), HandlerError> {
        assert!(cx.command_id().is_none(), "an event runs it too");
        let _ = order;
        Ok(())
    }

    #[on("hear")]
    async fn hear(&self, _: OrderPlaced, _: &HandlerContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// A type without anything.
struct Nothing;

#[event_handler(crate = outbox_sea_orm)]
impl Nothing {
    #[on("ignore")]
    async fn ignore(&self, _: OrderPlaced, _: &HandlerContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

fn main() {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(story());
}

async fn story() {
    let db = sea_orm::Database::connect("sqlite::memory:").await.unwrap();
    let outbox = Outbox::builder(db).source("shop").install().await.unwrap();
    outbox.execute_unprepared("CREATE TABLE bills (bill TEXT NOT NULL)").await.unwrap();
    let (publisher, subscriber) = Memory::channel();
    let consumer = Consumer::builder("billing", &outbox).handlers(Billing { prefix: "the" }).handlers(Nothing).handlers(Payments);
    let consumer = consumer.commands_from("/orders", "orders.replies");
    let handle = consumer.subscribe(subscriber).start().await.unwrap();
    use outbox_sea_orm::transport::Publisher;
    for (event_type, version, payload) in
        [("order.placed", 2, r#"{"id":1,"cents":250}"#), ("order.placed", 1, r#"{"id":2,"euros":3}"#), ("order.cancelled", 1, "7")]
    {
        publisher.publish(&message(event_type, version, payload)).await.unwrap();
    }
    let stats = *handle.stats().borrow();
    assert_eq!((stats.handled, stats.unknown, stats.dead_lettered), (11, 0, 0));
    handle.shutdown(Duration::from_secs(5)).await.unwrap();
    let ask = sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, "SELECT bill FROM bills ORDER BY bill");
    let rows = outbox.query_all_raw(ask).await.unwrap();
    let bills: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    let expected = ["the bill 10250", "the bill 20300", "the count 1", "the count 2", "the follow-order 7"];
    assert_eq!(bills, expected);
}

fn message(event_type: &str, version: u16, payload: &'static str) -> outbox_sea_orm::event::Message {
    use outbox_sea_orm::event::{Headers, Message, MessageId, MessageParts, Timestamp};
    Message::new(MessageParts {
        id: MessageId::generate(),
        sequence: None,
        source: "/shop".into(),
        event_type: event_type.into(),
        event_version: version,
        topic: "orders".into(),
        aggregate_type: None,
        key: None,
        content_type: "application/json".into(),
        payload: payload.as_bytes().to_vec().into(),
        headers: Headers::new(),
        created_at: Timestamp::from_micros(0),
        expires_at: None,
        retry: None,
    })
}
