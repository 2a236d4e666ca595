//! A database with an outbox and the tables of the scripts, and a broker with one queue.

use crate::script::{Actor, Script, What};
use async_trait::async_trait;
use futures_util::future::join_all;
use outbox_core::{
    consumer::{Consumer, ConsumerBuilder, ConsumerStats},
    event::{Headers, MessageParts, NewEvent, Timestamp},
    transport::{Acknowledge, Delivery, SubscribeError, Subscriber},
};
use outbox_sea_orm::{
    entity::{dead_letter, event},
    prelude::*,
};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait, QueryOrder, Statement, TryGetable,
};
use std::time::Duration;
use tests::databases::TempDatabase;
use tokio::sync::{mpsc, oneshot};

/// Long enough for a busy machine; nothing waits that long when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Rows that handlers lock.
pub(crate) const LOCKS: u8 = 3;

pub(crate) struct World {
    pub(crate) db: DatabaseConnection,
    pub(crate) outbox: Outbox,
}

/// What a handler has left in the database.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Left {
    /// Group, number and attempt, in the order of each group.
    pub(crate) effects: Vec<(String, i64, i64)>,
    /// Key, payload and causation, in the order of each key.
    pub(crate) told: Vec<(String, String, String)>,
    pub(crate) locks: Vec<i64>,
    /// Payload, reason and attempts.
    pub(crate) letters: Vec<(String, String, i64)>,
    pub(crate) inbox: i64,
    pub(crate) deferred: i64,
}

impl World {
    pub(crate) async fn open(temp: &TempDatabase) -> Self {
        let db = temp.connect().await;
        let id = match db.get_database_backend() {
            DbBackend::Postgres => {
                // Deadlocks are part of the test, and a second each is long.
                let name = temp.name();
                let sql = format!("ALTER DATABASE \"{name}\" SET deadlock_timeout = '20ms'");
                db.execute_unprepared(&sql).await.unwrap();
                "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
            }
            DbBackend::MySql => "BIGINT AUTO_INCREMENT PRIMARY KEY",
            _ => "INTEGER PRIMARY KEY AUTOINCREMENT",
        };
        let outbox = Outbox::builder(db.clone()).source("batches").install().await.unwrap();
        for sql in [
            &format!(
                "CREATE TABLE effects (id {id}, handler VARCHAR(64) NOT NULL, grp VARCHAR(64), n BIGINT NOT NULL, attempt BIGINT NOT NULL)"
            ),
            "CREATE TABLE locks (handler VARCHAR(64), id BIGINT, n BIGINT NOT NULL, PRIMARY KEY (handler, id))",
            "CREATE TABLE taken (id BIGINT PRIMARY KEY)",
            "INSERT INTO taken (id) VALUES (1)",
        ] {
            db.execute_unprepared(sql).await.unwrap();
        }
        Self { db, outbox }
    }

    /// A consumer of scripts with one handler, which has the same name.
    pub(crate) fn consumer(&self, name: &str, actor: &Actor) -> ConsumerBuilder<Outbox> {
        Consumer::builder(name, &self.outbox)
            .on::<Script, _>(name, actor.clone())
            .retry(RetryPolicy::attempts(3, Duration::from_millis(5)))
    }

    /// Adds the rows that a handler locks.
    pub(crate) async fn add_locks(&self, handler: &str) {
        for id in 0..LOCKS {
            let sql = format!("INSERT INTO locks (handler, id, n) VALUES ('{handler}', {id}, 0)");
            self.db.execute_unprepared(&sql).await.unwrap();
        }
    }

    async fn rows<T: TryGetable>(&self, sql: String) -> Vec<T> {
        let query = Statement::from_string(self.db.get_database_backend(), sql);
        let rows = self.db.query_all_raw(query).await.unwrap();
        rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.rows(sql.to_owned()).await[0]
    }

    /// What a handler has left, with the events that it emitted.
    pub(crate) async fn left(&self, handler: &str) -> Left {
        let of = |what: &str| {
            let cast =
                if self.db.get_database_backend() == DbBackend::MySql { "CHAR" } else { "TEXT" };
            let text = match self.db.get_database_backend() {
                DbBackend::MySql => format!(
                    "CONCAT(COALESCE(grp, ''), '/', CAST(n AS {cast}), '/', CAST(attempt AS {cast}))"
                ),
                _ => format!(
                    "COALESCE(grp, '') || '/' || CAST(n AS {cast}) || '/' || CAST(attempt AS {cast})"
                ),
            };
            format!(
                "SELECT {text} FROM effects WHERE handler = '{handler}' {what} ORDER BY COALESCE(grp, ''), id"
            )
        };
        let read = |line: String| {
            let parts: Vec<&str> = line.split('/').collect();
            (parts[0].to_owned(), parts[1].parse().unwrap(), parts[2].parse().unwrap())
        };
        let mut effects: Vec<(String, i64, i64)> =
            self.rows(of("AND grp IS NOT NULL")).await.into_iter().map(read).collect();
        // What has no key has no order; nor has what is marked across keys.
        let mut unordered: Vec<_> =
            effects.extract_if(.., |(group, ..)| !group.starts_with('k')).collect();
        unordered.extend(self.rows(of("AND grp IS NULL")).await.into_iter().map(read));
        unordered.sort();
        effects.extend(unordered);
        let sql = format!("SELECT n FROM locks WHERE handler = '{handler}' ORDER BY id");
        let count = |table: &str| {
            format!(
                "SELECT CAST(COUNT(*) AS {}) FROM {table} WHERE handler = '{handler}'",
                if self.db.get_database_backend() == DbBackend::MySql {
                    "SIGNED"
                } else {
                    "BIGINT"
                }
            )
        };
        Left {
            effects,
            told: self.told(handler).await,
            locks: self.rows(sql).await,
            letters: self.letters(handler).await,
            inbox: self.number(&count("outbox_inbox")).await,
            deferred: self.number(&count("outbox_deferred")).await,
        }
    }

    async fn told(&self, handler: &str) -> Vec<(String, String, String)> {
        let rows =
            event::Entity::find().order_by_asc(event::Column::EventId).all(&self.db).await.unwrap();
        let mark = format!("\"{handler}\"");
        let mut told: Vec<_> = rows
            .into_iter()
            .map(|row| {
                let headers = Headers::from_json(&row.headers).unwrap();
                let cause = headers.get("causationid").unwrap_or("none").to_owned();
                let payload = String::from_utf8(row.payload).unwrap();
                (row.message_key.unwrap_or_default(), payload, cause)
            })
            .filter(|(_, payload, _)| payload.contains(&mark))
            .map(|(key, payload, cause)| (key, payload.replace(&mark, "-"), cause))
            .collect();
        told.sort_by(|a, b| {
            a.0.cmp(&b.0).then(if a.0.is_empty() {
                a.1.cmp(&b.1)
            } else {
                std::cmp::Ordering::Equal
            })
        });
        told
    }

    async fn letters(&self, handler: &str) -> Vec<(String, String, i64)> {
        let rows = dead_letter::Entity::find().all(&self.db).await.unwrap();
        let mut letters: Vec<_> = rows
            .into_iter()
            .filter(|row| row.route == format!("{handler}/{handler}"))
            .map(|row| {
                let payload = String::from_utf8(row.payload).unwrap();
                (payload, row.reason, row.attempts)
            })
            .collect();
        letters.sort();
        letters
    }
}

/// A message with a script.
pub(crate) fn message(n: u32, group: Option<&str>, what: What) -> Message {
    let script = Script { n, group: group.map(str::to_owned), what };
    let new = NewEvent::encode(&script).unwrap();
    Message::new(MessageParts {
        id: new.message_id,
        sequence: None,
        source: "/elsewhere".into(),
        event_type: new.event_type,
        event_version: new.event_version,
        topic: new.topic,
        aggregate_type: None,
        key: new.key,
        content_type: new.content_type,
        payload: new.payload,
        headers: Headers::new(),
        created_at: Timestamp::from_micros(1),
        expires_at: None,
        retry: None,
    })
}

/// Delivers messages to a consumer, waits until all are acknowledged and nothing is stored, and stops it.
pub(crate) async fn handle(
    world: &World,
    consumer: ConsumerBuilder<Outbox>,
    messages: &[Message],
) -> ConsumerStats {
    let (sender, receiver) = mpsc::unbounded_channel();
    let acked: Vec<_> = messages
        .iter()
        .map(|message| {
            let (ack, acked) = oneshot::channel();
            sender.send(Delivery::new(Ok(message.clone()), None, Box::new(Handle(ack)))).unwrap();
            acked
        })
        .collect();
    let handle = consumer.subscribe(Receiving(receiver)).start().await.unwrap();
    let acked = tokio::time::timeout(SOON, join_all(acked)).await.expect("all are acknowledged");
    let refused: Vec<_> = acked.iter().filter(|ack| !matches!(ack, Ok(true))).collect();
    assert!(refused.is_empty(), "{refused:?} {:?}", *handle.stats().borrow());
    tests::wait_until(SOON, "nothing is stored", async || {
        tests::equals(world.number("SELECT COUNT(*) FROM outbox_deferred").await, 0)
    })
    .await;
    let stats = handle.stats();
    handle.shutdown(SOON).await.unwrap();
    *stats.borrow()
}

pub(crate) struct Receiving(pub(crate) mpsc::UnboundedReceiver<Delivery>);

#[async_trait]
impl Subscriber for Receiving {
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        Ok(self.0.recv().await)
    }
}

/// Tells whether the delivery was acknowledged.
pub(crate) struct Handle(pub(crate) oneshot::Sender<bool>);

#[async_trait]
impl Acknowledge for Handle {
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError> {
        let _ = self.0.send(true);
        Ok(())
    }
    async fn nack(self: Box<Self>, _requeue: bool) -> Result<(), SubscribeError> {
        let _ = self.0.send(false);
        Ok(())
    }
    async fn reject(self: Box<Self>, _reason: &str) -> Result<(), SubscribeError> {
        let _ = self.0.send(false);
        Ok(())
    }
}
