//! A database with an outbox that encodes, a consumer that notes what it sees, and a search for clear
//! content in every column.

use outbox_core::{
    consumer::capturing,
    event::{MessageParts, NewEvent, PayloadCodecs, Timestamp},
    testing::FlippingCodec,
    transport::MemorySubscriber,
};
use outbox_sea_orm::{
    OutboxBuilder, Retention,
    entity::{archive, dead_letter, deferred},
    prelude::*,
};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait, Statement};
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tests::{databases::TempDatabase, wait_until};

/// Long enough for a busy machine; nothing waits that long when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// What no column may have.
pub(crate) const CANARY: &str = "canary-4111-1111-1111";

/// The customer whose card is never taken: the handler fails, and is run again later.
pub(crate) const FAILS: i64 = 13;
/// The customer whose card is rejected.
pub(crate) const REJECTED: i64 = 14;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "card.added", topic = "cards")]
pub(crate) struct CardAdded {
    #[outbox(key)]
    pub(crate) customer: i64,
    pub(crate) number: String,
}

pub(crate) fn card(customer: i64) -> CardAdded {
    CardAdded { customer, number: CANARY.to_owned() }
}

pub(crate) fn flipping(keys: impl IntoIterator<Item = &'static str>) -> Arc<FlippingCodec> {
    Arc::new(FlippingCodec::new("flip", keys))
}

/// The customers whose cards a handler has seen.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<i64>>>);

impl Seen {
    /// Gives them in the order of their numbers: cards of two customers have no order.
    pub(crate) fn all(&self) -> Vec<i64> {
        let mut seen = self.0.lock().unwrap().clone();
        seen.sort_unstable();
        seen
    }
}

pub(crate) struct World {
    pub(crate) db: DatabaseConnection,
    pub(crate) outbox: Outbox,
}

impl World {
    /// Opens one that encodes with a codec, and keeps what it has published.
    pub(crate) async fn open(temp: &TempDatabase, codec: &Arc<FlippingCodec>) -> Self {
        let db = temp.connect().await;
        let outbox = builder(&db).payload_codec(codec.clone()).install().await.unwrap();
        Self { db, outbox }
    }

    /// Gives another instance of the service, with other codecs.
    pub(crate) async fn beside(
        &self,
        codecs: impl FnOnce(OutboxBuilder) -> OutboxBuilder,
    ) -> Outbox {
        codecs(builder(&self.db)).build().await.unwrap()
    }

    pub(crate) async fn emit(&self, customers: impl IntoIterator<Item = i64>) {
        let tx = self.outbox.begin().await.unwrap();
        for customer in customers {
            tx.emit(card(customer)).unwrap();
        }
        tx.commit().await.unwrap();
    }

    pub(crate) async fn archived(&self) -> usize {
        archive::Entity::find().all(&self.db).await.unwrap().len()
    }

    pub(crate) async fn letters(&self) -> Vec<dead_letter::Model> {
        dead_letter::Entity::find().all(&self.db).await.unwrap()
    }

    pub(crate) async fn deferred(&self) -> Vec<deferred::Model> {
        deferred::Entity::find().all(&self.db).await.unwrap()
    }

    /// Waits until a handler has seen these customers' cards.
    pub(crate) async fn sees(&self, seen: &Seen, customers: &[i64]) {
        wait_until(SOON, "the handler sees the cards", async || {
            tests::equals(seen.all(), customers.to_vec())
        })
        .await;
    }

    /// The columns that have a text, as `table.column`, as it is or in hexadecimal digits; not those of
    /// tables that begin like one of `but`.
    pub(crate) async fn columns_with(&self, text: &str, but: &[&str]) -> Vec<String> {
        let digits: String = text.bytes().map(|byte| format!("{byte:02X}")).collect();
        let backend = self.db.get_database_backend();
        let mut found = Vec::new();
        for (table, column) in self.columns().await {
            if but.iter().any(|but| table.starts_with(but)) {
                continue;
            }
            let has = match backend {
                // A bytea as text is `\x` and digits.
                DbBackend::Postgres => format!(
                    "position('{text}' in \"{column}\"::text) + position('{}' in \"{column}\"::text)",
                    digits.to_lowercase()
                ),
                DbBackend::Sqlite => format!("instr(hex(\"{column}\"), '{digits}')"),
                _ => format!("instr(hex(`{column}`), '{digits}')"),
            };
            let sql = format!("SELECT COUNT(*) FROM {table} WHERE {has} > 0");
            let row = self.db.query_one_raw(Statement::from_string(backend, sql)).await;
            let count: i64 = row.unwrap().unwrap().try_get_by_index(0).unwrap();
            if count > 0 {
                found.push(format!("{table}.{column}"));
            }
        }
        found
    }

    /// Lists the columns of all tables; the view has those of the tables.
    async fn columns(&self) -> Vec<(String, String)> {
        let backend = self.db.get_database_backend();
        let sql = match backend {
            DbBackend::Postgres => {
                "SELECT table_name::text, column_name::text FROM information_schema.columns \
                 WHERE table_name LIKE 'outbox%' AND table_name <> 'outbox_view'"
            }
            DbBackend::Sqlite => {
                "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c \
                 WHERE m.type = 'table' AND m.name LIKE 'outbox%'"
            }
            _ => {
                "SELECT CAST(table_name AS CHAR), CAST(column_name AS CHAR) FROM information_schema.columns \
                 WHERE table_schema = DATABASE() AND table_name LIKE 'outbox%' AND table_name <> 'outbox_view'"
            }
        };
        let rows = self.db.query_all_raw(Statement::from_string(backend, sql)).await.unwrap();
        let columns: Vec<(String, String)> = rows
            .iter()
            .map(|row| (row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap()))
            .collect();
        assert!(columns.len() > 50, "all columns are found: {columns:?}");
        columns
    }
}

fn builder(db: &DatabaseConnection) -> OutboxBuilder {
    let keep = Retention::Keep(Duration::from_hours(1));
    Outbox::builder(db.clone()).source("shop").retention(keep)
}

/// A consumer that notes the cards that it sees, each with its clear number and without a header of the
/// codec.
pub(crate) fn noting(
    outbox: &Outbox,
    seen: &Seen,
    queue: MemorySubscriber,
) -> ConsumerBuilder<Outbox> {
    let seen = seen.clone();
    let note = capturing(move |card: CardAdded, cx| {
        let seen = seen.clone();
        Box::pin(async move {
            assert_eq!((card.number.as_str(), cx.message().encoding()), (CANARY, None));
            match card.customer {
                FAILS => Err(HandlerError::retry("the vault is closed")),
                REJECTED => Err(HandlerError::reject("no such customer")),
                customer => {
                    seen.0.lock().unwrap().push(customer);
                    Ok(())
                }
            }
        })
    });
    // Its first wait is stored.
    let policy = RetryPolicy::attempts(3, Duration::from_hours(1));
    Consumer::builder("notes", outbox).on("note", note).retry(policy).subscribe(queue)
}

/// Publishes all events into a queue.
pub(crate) async fn relay(outbox: &Outbox) -> (Relay, MemorySubscriber) {
    let (publisher, queue) = Memory::channel();
    let relay = Relay::builder(outbox).route("all", everything(), publisher);
    (relay.poll(Duration::from_millis(50)).start().await.unwrap(), queue)
}

/// A message with a card, as another service would send it with this codec.
pub(crate) fn received(codec: &Arc<FlippingCodec>, card: &CardAdded) -> Message {
    let mut event = NewEvent::encode(card).unwrap();
    let source = "/elsewhere".to_owned();
    PayloadCodecs::NONE.encode_with(codec.clone()).encode(&source, &mut event).unwrap();
    Message::new(MessageParts {
        id: event.message_id,
        sequence: None,
        source,
        event_type: event.event_type,
        event_version: event.event_version,
        topic: event.topic,
        aggregate_type: None,
        key: event.key,
        content_type: event.content_type,
        payload: event.payload,
        headers: event.headers,
        created_at: Timestamp::from_micros(1),
        expires_at: None,
        retry: None,
    })
}
