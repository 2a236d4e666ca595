//! Unusable messages: each becomes a dead letter with its reason, the others are handled, and none
//! is delivered again.

use crate::{
    outbox::{Sample, World},
    support::{Client, SOON, client, name, subscriber, url},
};
use lapin::{
    BasicProperties,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use outbox_sea_orm::{
    OutboxTransaction,
    admin::{AdminStore, DeadLetterFilter},
    consumer::{Consumer, HandlerContext, UnhandledPolicy},
    failure::{
        DeadLetter,
        DeadReason::{self, Undecodable, UnknownType},
    },
};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database, wait_until};
use tokio::time::sleep;

/// Longest payload that is taken here.
const LONGEST: usize = 200_000;
/// How long it is watched that nothing comes again.
const QUIET: Duration = Duration::from_millis(500);

/// A message as a stranger sends it, and what its letter says.
struct Strange {
    properties: BasicProperties,
    body: Vec<u8>,
    reason: DeadReason,
    says: &'static str,
    /// Whether it can be read as a message, so that its letter can be redriven.
    is_message: bool,
}

fn text(text: impl AsRef<str>) -> AMQPValue {
    AMQPValue::LongString(text.as_ref().into())
}

/// The attributes of an event, with some more or others.
fn attributes(others: impl IntoIterator<Item = (String, AMQPValue)>) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in [
        ("specversion", "1.0"),
        ("id", "A-1"),
        ("source", "/elsewhere"),
        ("type", "story.sample"),
        ("topic", "story"),
    ] {
        table.insert(format!("cloudEvents_{name}").as_str().into(), text(value));
    }
    for (name, value) in others {
        table.insert(name.as_str().into(), value);
    }
    BasicProperties::default().with_content_type("application/json".into()).with_headers(table)
}

fn with(name: &str, value: &str) -> BasicProperties {
    attributes([(format!("cloudEvents_{name}"), text(value))])
}

fn strangers() -> Vec<Strange> {
    let structured =
        || BasicProperties::default().with_content_type("application/cloudevents+json".into());
    let unreadable = |properties, body: &[u8], says| Strange {
        properties,
        body: body.to_vec(),
        reason: Undecodable,
        says,
        is_message: false,
    };
    let refused = |id: &str, body: Vec<u8>, says| Strange {
        properties: with("id", id),
        body,
        reason: Undecodable,
        says,
        is_message: true,
    };
    let event = br#"{"key":"a","n":1}"#;
    let mut without_id = attributes([]).headers().clone().unwrap_or_default().inner().clone();
    without_id.remove("cloudEvents_id");
    let without_id = BasicProperties::default().with_headers(without_id.into());
    let many = |n| attributes((0..n).map(|n| (format!("cloudEvents_x{n}"), text("y"))));
    let nested = [b"[".repeat(20_000), b"]".repeat(20_000)].concat();
    vec![
        unreadable(structured(), b"{not json", "not JSON"),
        unreadable(structured(), b"\xff\xfe\0", "not JSON"),
        unreadable(BasicProperties::default(), event, "no attributes of CloudEvents"),
        unreadable(without_id, event, "`id` is missing"),
        unreadable(
            structured(),
            br#"{"specversion":"1.0","source":"/s","type":"story.sample"}"#,
            "`id` is missing",
        ),
        unreadable(with("specversion", "0.3"), event, "`specversion` is not 1.0"),
        unreadable(with("eventversion", "no number"), event, "`eventversion`"),
        // All that fit in one frame.
        unreadable(many(5_000), event, "more than 128 attributes"),
        unreadable(attributes([]), &vec![b'x'; LONGEST + 1], "200001 bytes, of at most 200000"),
        Strange {
            properties: attributes([
                ("cloudEvents_id".into(), text("V-9")),
                ("cloudEvents_eventversion".into(), text("9")),
            ]),
            body: event.to_vec(),
            reason: UnknownType,
            says: "version 9",
            is_message: true,
        },
        refused("B-1", b"not json".to_vec(), "expected"),
        refused("B-2", b"[]".to_vec(), "invalid length"),
        refused("B-3", nested, "invalid type"),
        Strange {
            properties: attributes([
                ("cloudEvents_id".into(), text("T-1")),
                ("cloudEvents_type".into(), text("story.unknown")),
            ]),
            body: event.to_vec(),
            reason: UnknownType,
            says: "no handler takes the type `story.unknown`",
            is_message: true,
        },
    ]
}

async fn publish(client: &Client, queue: &str, properties: BasicProperties, body: &[u8]) {
    let sent =
        client.channel.basic_publish("".into(), queue.into(), Default::default(), body, properties);
    sent.await.expect("sent").await.expect("taken");
}

async fn effect(sample: Sample, cx: &HandlerContext<OutboxTransaction>) -> Result<(), DbErr> {
    cx.tx
        .execute_unprepared(&format!("INSERT INTO effects (n) VALUES ({})", sample.n))
        .await
        .map(|_| ())
}

on_every_database! {
    async fn an_unusable_message_becomes_a_dead_letter_with_its_reason_and_is_not_delivered_again(db: &TempDatabase) {
        let (world, name, client) = (World::on(db).await, name("strange"), client(&url()).await);
        world.db.execute_unprepared("CREATE TABLE effects (n BIGINT NOT NULL)").await.expect("made");
        let queue = QueueDeclareOptions { auto_delete: true, ..Default::default() };
        client.channel.queue_declare(name.as_str().into(), queue, FieldTable::default()).await.expect("declared");
        let consumer = Consumer::builder("story", &world.outbox).on("effect", effect).unhandled(UnhandledPolicy::DeadLetter);
        let consumer = consumer.keep_unknown(Duration::ZERO);
        let handle = consumer.subscribe(subscriber(&name).max_payload(LONGEST)).start().await.expect("started");
        let strangers = strangers();
        let mut sent = 0;
        for (n, strange) in (1_u64..).zip(&strangers) {
            publish(&client, &name, strange.properties.clone(), &strange.body).await;
            // And a readable one after each.
            let well = format!(r#"{{"key":"b","n":{n}}}"#);
            publish(&client, &name, with("id", &format!("W-{n}")), well.as_bytes()).await;
            sent += 2;
        }
        wait_until(SOON, "each has its ack decision", async || tests::equals(handle.stats().borrow().acked, sent)).await;
        sleep(QUIET).await;
        let stats = *handle.stats().borrow();
        handle.shutdown(SOON).await.expect("stopped");
        // A database that is slow for long has deliveries returned, which come again; nothing else
        // comes twice.
        assert_eq!((stats.received - stats.returned, stats.acked), (sent, sent), "each came once");
        assert_eq!((stats.rejected, stats.retried, stats.stored), (0, 0, 0));
        let effects = i64::try_from(strangers.len()).expect("few");
        assert_eq!(world.number("SELECT COUNT(DISTINCT n) FROM effects").await, effects);
        assert_eq!(world.number("SELECT COUNT(*) FROM effects").await, effects);

        let letters = world.outbox.dead_letters(&DeadLetterFilter::all().consumer("story"), None, 100).await.expect("read");
        assert_eq!(letters.len(), strangers.len());
        for strange in &strangers {
            let says = |text: &str| text.contains(strange.says);
            let of_it = letters.iter().filter(|letter| letter.errors.iter().any(|error| says(&error.text)));
            let fits = |letter: &DeadLetter| {
                letter.reason == strange.reason && letter.message.is_some() == strange.is_message
            };
            assert!(of_it.clone().any(fits), "{}: {letters:?}", strange.says);
        }
        // The bytes that came are kept, whether they could be read or not.
        let payloads = Statement::from_string(world.db.get_database_backend(), "SELECT payload FROM outbox_dead_letters");
        let kept = world.db.query_all_raw(payloads).await.expect("read");
        let mut kept: Vec<Vec<u8>> = kept.iter().map(|row| row.try_get_by_index(0).expect("bytes")).collect();
        let mut bodies: Vec<Vec<u8>> = strangers.into_iter().map(|strange| strange.body).collect();
        kept.sort();
        bodies.sort();
        assert!(kept == bodies, "byte for byte");
    }
}
