//! The relay and the consumer over Kafka: members and brokers crash, each effect happens once, and
//! every key keeps its order.

use crate::support::{
    Cx, LATE, LEASE, SOON, Sample, VictimConfig, World, consumer, kafka, keys, message, relay,
    victim,
};
use outbox_kafka::KafkaPublisher;
use outbox_sea_orm::{
    consumer::{Consumer, HandlerError},
    event::MessageId,
    transport::{everything, publish_all},
};
use sea_orm::ConnectionTrait;
use std::time::Duration;
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
    servers::kafka as broker,
    wait_until,
};

/// A topic of this test alone.
fn topic() -> String {
    format!("outbox-test.story.{}", MessageId::generate())
}

/// A publisher to the topic, which it declares.
fn publisher(url: &str, topic: &str) -> KafkaPublisher {
    let publisher =
        KafkaPublisher::new(url).unwrap().topic(topic).declare([kafka::declared(topic)]);
    publisher.timeout(Duration::from_secs(5))
}

on_every_database! {
    async fn a_member_that_is_killed_under_load_costs_no_message_and_no_second_effect(db: &TempDatabase) {
        const KEYS: u64 = 20;
        const EACH: u64 = 30;
        let (world, topic, url) = (World::open(db).await, topic(), broker::shared_url());
        let config = VictimConfig { url: db.url().to_owned(), kafka: Some((url.clone(), topic.clone())), ..VictimConfig::default() };
        let mut first = victim(&config).await;
        let publisher = publisher(&url, &topic);
        let publish = async |range: std::ops::RangeInclusive<u64>| {
            for n in range {
                let batch: Vec<_> = (0..KEYS).map(|key| message(&format!("k{key}"), n)).collect();
                let outcomes = publish_all(&publisher, &batch).await;
                assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            }
        };
        publish(1..=EACH / 3).await;
        wait_until(LATE, "the first one is at work", async || tests::above(world.count("story_effects").await, 0)).await;
        let second = consumer(&world.outbox, "effect").subscribe(kafka::member(&url, &topic)).start().await.unwrap();
        publish(EACH / 3 + 1..=2 * EACH / 3).await;
        first.kill().await;
        publish(2 * EACH / 3 + 1..=EACH).await;
        let all = i64::try_from(KEYS * EACH).unwrap();
        wait_until(LATE, "all are handled", async || world.count("story_effects").await >= all).await;
        second.shutdown(SOON).await.unwrap();
        assert_eq!((world.count("story_effects").await, world.count("outbox_inbox").await), (all, all));
        assert_eq!(world.count("outbox_dead_letters").await, 0);
    }
}

/// Notes an event, if it is the next of its key.
async fn in_order(event: Sample, cx: &Cx) -> Result<(), HandlerError> {
    let Sample { key, n, .. } = event;
    let next = format!("UPDATE story_progress SET n = {n} WHERE k = '{key}' AND n = {n} - 1");
    match cx.tx.execute_unprepared(&next).await?.rows_affected() {
        1 => Ok(()),
        _ => Err(HandlerError::reject(format!("{key} {n} is not the next"))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_events_over_three_deaths_of_the_broker_have_their_effect_once_and_in_the_order_of_their_keys()
 {
    const KEYS: u64 = 100;
    const EACH: u64 = 200;
    /// The broker, which keeps all in a file and is built without optimisation, takes most of the time.
    const TAKEN: Duration = Duration::from_secs(220);
    let db = TempDatabase::create(Database::Postgres).await;
    let (world, topic, mut server) = (World::open(&db).await, topic(), broker::start().await);
    world
        .db
        .execute_unprepared(
            "CREATE TABLE story_progress (k VARCHAR(64) NOT NULL PRIMARY KEY, n BIGINT NOT NULL)",
        )
        .await
        .unwrap();
    for key in 0..KEYS {
        world
            .db
            .execute_unprepared(&format!("INSERT INTO story_progress (k, n) VALUES ('k{key}', 0)"))
            .await
            .unwrap();
    }
    world.emit_all(&keys(KEYS, EACH)).await;
    let url = server.url();
    let source = world.source();
    let relay = relay(&source, LEASE)
        .route("kafka", everything(), publisher(&url, &topic))
        .start()
        .await
        .unwrap();
    let consuming = Consumer::builder("story", &world.outbox).on("in_order", in_order);
    let consuming = consuming.subscribe(kafka::member(&url, &topic)).start().await.unwrap();
    let handled = async || world.number("SELECT CAST(SUM(n) AS BIGINT) FROM story_progress").await;
    let all = i64::try_from(KEYS * EACH).unwrap();
    for quarter in 1..=3 {
        wait_until(LATE, "a quarter more is handled", async || {
            handled().await >= all * quarter / 8
        })
        .await;
        server.kill().await;
        server.start().await;
    }
    wait_until(TAKEN, "all are handled", async || tests::equals(handled().await, all)).await;
    world.drained(LATE).await;
    relay.shutdown(SOON).await.unwrap();
    let received = *consuming.stats().borrow();
    consuming.shutdown(SOON).await.unwrap();
    assert_eq!((received.handled, received.dead_lettered), (all.unsigned_abs(), 0), "{received:?}");
    assert_eq!(
        world.number("SELECT COUNT(*) FROM story_progress WHERE n <> 200").await,
        0,
        "each key is whole"
    );
    assert_eq!(
        (world.count("outbox_inbox").await, world.count("outbox_dead_letters").await),
        (all, 0)
    );
}
