//! A shop with a relay, a consumer and sagas on one SQLite database, and the router beside them.

use async_trait::async_trait;
use outbox_core::{
    admin::AdminStore,
    consumer::{Consumer, HandlerError},
    relay::Relay,
    telemetry::{Metrics, SeriesValue},
    testing::Recorder,
    transport::{
        Acknowledge, Delivery, Memory, PublishError, Publisher, Route, SubscribeError, Subscriber,
        topic,
    },
};
use outbox_metrics::MetricsRouter;
use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{
    databases::{Database, TempDatabase},
    equals, wait_until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Long enough for a busy machine; nothing waits that long when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders")]
pub(crate) struct OrderPlaced {
    #[outbox(key)]
    pub(crate) order_id: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.lost", topic = "losses")]
pub(crate) struct OrderLost {
    #[outbox(key)]
    pub(crate) order_id: i64,
}

/// Order 2 is rejected, and order 3 fails the first time.
async fn send_mail(order: OrderPlaced, cx: &HandlerContext) -> Result<(), HandlerError> {
    match order.order_id {
        2 => Err(HandlerError::reject("no such order")),
        3 if cx.attempt() == 1 => Err(HandlerError::retry("not yet")),
        _ => Ok(()),
    }
}

/// A saga that completes, is compensated (order 2), or gets stuck (order 3).
#[derive(Serialize, Deserialize)]
pub(crate) struct PlaceOrder {
    pub(crate) order_id: i64,
}

#[saga(name = "place-order", version = 1)]
impl PlaceOrder {
    #[step(compensate = release_stock)]
    async fn reserve_stock(&mut self, _cx: &StepContext) -> Result<i64, StepError> {
        Ok(self.order_id)
    }

    #[step(pivot)]
    async fn charge(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        if self.order_id == 2 { Err(StepError::abort("over the limit")) } else { Ok(()) }
    }

    #[step]
    async fn ship(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        if self.order_id == 3 { Err(StepError::abort("no such address")) } else { Ok(()) }
    }

    async fn release_stock(&mut self, _reserved: i64, _cx: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// A subscriber that gives one delivery which cannot be read.
struct Unreadable(bool);

struct Ignored;

#[async_trait]
impl Acknowledge for Ignored {
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError> {
        Ok(())
    }

    async fn nack(self: Box<Self>, _requeue: bool) -> Result<(), SubscribeError> {
        Ok(())
    }

    async fn reject(self: Box<Self>, _reason: &str) -> Result<(), SubscribeError> {
        Ok(())
    }
}

#[async_trait]
impl Subscriber for Unreadable {
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        if std::mem::replace(&mut self.0, true) {
            return std::future::pending().await;
        }
        Ok(Some(Delivery::new(Err("no JSON".to_owned()), None, Box::new(Ignored))))
    }

    fn system(&self) -> &'static str {
        "carrier"
    }
}

pub(crate) struct World {
    pub(crate) outbox: Outbox,
    pub(crate) metrics: Metrics,
    pub(crate) relay: Relay,
    pub(crate) consumer: Consumer,
    pub(crate) sagas: Sagas,
    /// Publishes to the consumer.
    pub(crate) mails: Memory,
    /// Has the orders that were published.
    pub(crate) copies: Recorder,
    address: String,
    server: JoinHandle<std::io::Result<()>>,
    _database: TempDatabase,
}

impl World {
    pub(crate) async fn open() -> Self {
        let database = TempDatabase::create(Database::Sqlite).await;
        let (db, metrics) = (database.connect().await, Metrics::new());
        let outbox = Outbox::builder(db).source("shop").install().await.unwrap();
        let ((mails, subscriber), copies) = (Memory::channel(), Recorder::new());
        let losses = Recorder::scripted(|_, _| Err(PublishError::transient("not today")));
        let once = RetryPolicy::attempts(1, Duration::from_millis(10));
        let relay = Relay::builder(&outbox)
            .route("mails", topic("orders"), mails.clone())
            .route("copies", topic("orders"), copies.clone())
            .add_route(Route::new("losses", topic("losses"), losses).retry(once))
            .metrics(metrics.clone())
            .start()
            .await
            .unwrap();
        let consumer = Consumer::builder("mails", &outbox)
            .on("send-mail", send_mail)
            .subscribe(subscriber)
            .subscribe(Unreadable(false))
            .retry(RetryPolicy::attempts(3, Duration::from_millis(100)))
            .max_unacked_time(Duration::ZERO)
            .metrics(metrics.clone())
            .start()
            .await
            .unwrap();
        let sagas = Sagas::builder(&outbox)
            .register(PlaceOrder::saga())
            .poll(Duration::from_millis(50))
            .metrics(metrics.clone())
            .start()
            .await
            .unwrap();
        let router = MetricsRouter::new()
            .metrics(metrics.clone())
            .check(relay.health_check())
            .check(consumer.health_check())
            .check(sagas.health_check())
            .database("shop", outbox.clone())
            .build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            outbox,
            metrics,
            relay,
            consumer,
            sagas,
            mails,
            copies,
            address,
            server,
            _database: database,
        }
    }

    /// Lets each of the metrics happen.
    pub(crate) async fn work(&self) {
        let tx = self.outbox.begin().await.unwrap();
        for order_id in 1..=3 {
            tx.emit(OrderPlaced { order_id }).unwrap();
            tx.start_saga(PlaceOrder { order_id }).await.unwrap();
        }
        tx.emit(OrderLost { order_id: 4 }).unwrap();
        tx.commit().await.unwrap();
        let settled = || async {
            let (consumer, sagas) = (*self.consumer.stats().borrow(), *self.sagas.stats().borrow());
            let relay = *self.relay.stats().borrow();
            let seen = (relay.delivered, relay.dead, consumer.handled, consumer.dead_lettered);
            equals((seen, sagas.idle, sagas.in_flight), ((6, 1, 2, 2), 3, 0))
        };
        wait_until(SOON, "events and sagas have ended", settled).await;
        // A message that comes twice.
        let handled = self.copies.messages();
        let first = handled.iter().find(|message| message.key.as_deref() == Some("1")).unwrap();
        self.mails.publish(first).await.unwrap();
        let repeated = || async {
            let stats = *self.consumer.stats().borrow();
            equals((stats.duplicates, stats.in_flight), (1, 0))
        };
        wait_until(SOON, "the repeat was recognised", repeated).await;
        let quiet = || async { equals(self.outbox.stats().await.unwrap().pending, 0) };
        wait_until(SOON, "nothing waits", quiet).await;
    }

    /// Asks the router for a path; gives the status, the type of the content, and the content.
    pub(crate) async fn get(&self, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: "));
        (status, content_type.unwrap_or_default().to_owned(), body.to_owned())
    }

    /// Gives the value of a metric's label set.
    pub(crate) fn value(&self, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.metrics.snapshot().value(metric, labels).map(SeriesValue::number)
    }

    pub(crate) async fn stop(self) {
        self.relay.shutdown(SOON).await.unwrap();
        self.consumer.shutdown(SOON).await.unwrap();
        self.sagas.shutdown(SOON).await.unwrap();
        self.server.abort();
    }
}
