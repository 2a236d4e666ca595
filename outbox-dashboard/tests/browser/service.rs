//! A service with an outbox: events that wait, were given up, are scheduled and deferred, and sagas
//! in each state.

use crate::{browser::SOON, ship};
use outbox_core::{
    admin::{AdminStore, ControlAction, ControlScope, ControlStore},
    testing::Recorder,
    transport::{Memory, PublishError},
};
use outbox_sea_orm::{EnqueueOptions, admin::OperatorNote, event::LetterId, prelude::*};
use sea_orm::{ConnectionTrait, Statement, Value};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};
use tests::{
    databases::{Database, TempDatabase},
    equals, wait_until,
};

/// An event of the service.
#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders")]
pub(crate) struct OrderPlaced {
    #[outbox(key)]
    pub(crate) order: String,
    pub(crate) note: String,
}

/// An event on a topic that is paused.
#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "newsletter.written", topic = "newsletters")]
struct NewsletterWritten {
    #[outbox(key)]
    to: String,
}

/// How a destination takes what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mood {
    /// It confirms.
    Works,
    /// It answers 503 to orders, and confirms anything else.
    Fails,
    /// Nothing listens there.
    IsDown,
}

/// A destination.
#[derive(Debug, Clone)]
pub(crate) struct Destination(Arc<AtomicU8>);

impl Destination {
    fn new(mood: Mood) -> Self {
        Self(Arc::new(AtomicU8::new(mood as u8)))
    }

    /// Changes how it takes what it gets.
    pub(crate) fn set(&self, mood: Mood) {
        self.0.store(mood as u8, Ordering::SeqCst);
    }

    fn publisher(&self) -> Recorder {
        let mood = Arc::clone(&self.0);
        Recorder::scripted(move |message, _| match mood.load(Ordering::SeqCst) {
            mood if mood == Mood::Works as u8 => Ok(()),
            mood if mood == Mood::Fails as u8 && !is_order(message) => Ok(()),
            mood if mood == Mood::Fails as u8 => {
                let order = message.key.as_deref().unwrap_or_default();
                Err(PublishError::transient(format!("503 from billing, request {order}")))
            }
            _ => Err(PublishError::unavailable("connection refused")),
        })
    }
}

/// The outbox of a service, on a database of its own.
pub(crate) struct Service {
    pub(crate) outbox: Outbox,
    /// Dropped with the service.
    _temp: TempDatabase,
}

impl Service {
    pub(crate) async fn open(database: Database, source: &str) -> Self {
        let temp = TempDatabase::create(database).await;
        let outbox = Outbox::builder(temp.connect().await).source(source).install().await.unwrap();
        Self { outbox, _temp: temp }
    }

    /// Saves an event.
    pub(crate) async fn place(&self, order: &str, note: &str) -> MessageId {
        self.emit(OrderPlaced { order: order.to_owned(), note: note.to_owned() }, None).await
    }

    async fn emit(&self, event: impl OutboxEvent, in_: Option<Duration>) -> MessageId {
        let tx = self.outbox.begin().await.unwrap();
        let options = match in_ {
            Some(wait) => EnqueueOptions::new().deliver_in(wait),
            None => EnqueueOptions::new(),
        };
        let id = tx.emit_with(event, options).unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// Starts a relay that gives up at the first failure, with a destination of its route `billing`.
    pub(crate) async fn relay(&self, mood: Mood) -> (Relay, Destination) {
        let destination = Destination::new(mood);
        let once = RetryPolicy::attempts(1, Duration::from_millis(1));
        let billing = Route::new("billing", topic("orders"), destination.publisher()).retry(once);
        let mailing = Route::new("mailing", topic("newsletters"), Recorder::new()).retry(once);
        let relay = Relay::builder(&self.outbox).add_route(billing).add_route(mailing);
        (relay.start().await.unwrap(), destination)
    }

    /// Saves events of so many keys and waits until all of them are dead letters.
    pub(crate) async fn bury(&self, orders: std::ops::Range<u32>) {
        let before = self.outbox.stats().await.unwrap().dead;
        let (relay, _) = self.relay(Mood::Fails).await;
        for order in orders.clone() {
            self.place(&format!("order-{order}"), "two chairs").await;
            // Where nothing is confirmed, the relay waits for the destination to come back.
            self.place(&format!("probe-{order}"), "").await;
        }
        let expected = before + u64::try_from(orders.len()).unwrap();
        self.waits_for_letters(expected).await;
        relay.shutdown(SOON).await.unwrap();
    }

    /// Waits until so many letters are open.
    pub(crate) async fn waits_for_letters(&self, expected: u64) {
        wait_until(SOON, "so many letters are open", async || {
            equals(self.outbox.stats().await.unwrap().dead, expected)
        })
        .await;
    }

    /// Writes what the tables of an outbox can have: all of it is on some page.
    pub(crate) async fn tell_its_story(&self) {
        self.bury(1..13).await;
        let note = OperatorNote::new("ann", "a duplicate, refunded by hand");
        self.outbox.discard(&[LetterId(3)], &note).await.unwrap();
        self.emit(OrderPlaced { order: "order-80".into(), note: "a gift".into() }, Some(DAY)).await;
        self.defer("order-90").await;
        let (topic, pause) = (ControlScope::Topic, ControlAction::Pause);
        self.outbox.set_control(topic, "newsletters", pause, Some(DAY), &note).await.unwrap();
        self.emit(NewsletterWritten { to: "subscribers".into() }, None).await;
        ship::tell(&self.outbox).await;
    }

    /// Hands a message to a consumer whose handler fails: its delivery is deferred.
    async fn defer(&self, order: &str) {
        let (publisher, subscriber) = Memory::channel();
        let later = RetryPolicy::attempts(8, Duration::from_hours(1));
        let consumer = Consumer::builder("warehouse", &self.outbox)
            .on("pack", fails)
            .retry(later)
            .max_unacked_time(Duration::ZERO)
            .subscribe(subscriber);
        let consumer = consumer.start().await.unwrap();
        let event = OrderPlaced { order: order.to_owned(), note: "a table".to_owned() };
        let message = Message::for_test(&event).unwrap();
        outbox_core::transport::Publisher::publish(&publisher, &message).await.unwrap();
        consumer.shutdown(SOON).await.unwrap();
    }

    /// Runs a statement.
    pub(crate) async fn sql(&self, sql: &str, values: Vec<Value>) {
        let db = self.outbox.connection();
        let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
        db.execute_raw(statement).await.unwrap();
    }
}

fn is_order(message: &Message) -> bool {
    message.key.as_deref().is_some_and(|key| key.starts_with("order-"))
}

const DAY: Duration = Duration::from_hours(24);

async fn fails(_: OrderPlaced, _: &HandlerContext) -> Result<(), HandlerError> {
    Err(HandlerError::retry("the scanner is offline"))
}
