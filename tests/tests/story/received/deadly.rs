//! A message that crashes its process at each run of its handler, over transports that do not count
//! deliveries.

use crate::support::{Broker, LATE, SOON, VictimConfig, World, message, supervised, victim};
use futures_util::future::join_all;
use outbox_http::HttpPublisher;
use outbox_sea_orm::{event::Message, transport::Publisher};
use std::net::{SocketAddr, TcpListener};
use tests::{databases::TempDatabase, on_every_database, wait_until};

/// Keys, and messages of each key; the seventh of all crashes the process.
const KEYS: u64 = 4;
const EACH: u64 = 5;
const ALL: i64 = 20;
/// The most crashes of the message: five counted ones, and one before the consumer isolates it.
const DEATHS: usize = 6;

fn messages() -> Vec<Message> {
    (1..=EACH).flat_map(|n| (0..KEYS).map(move |key| message(&format!("k{key}"), n))).collect()
}

fn config(db: &TempDatabase) -> VictimConfig {
    VictimConfig { url: db.url().to_owned(), handler: "aborting".into(), ..VictimConfig::default() }
}

/// Tells whether all twenty have ended: one is a dead letter, the others have had their effect.
async fn is_over(world: &World) -> bool {
    world.count("outbox_inbox").await == ALL && world.count("outbox_deferred").await == 0
}

async fn one_is_buried_and_the_others_are_handled(world: &World) {
    let letters = world.letters().await;
    let found: Vec<_> =
        letters.iter().map(|l| (l.route.as_str(), l.reason.as_str(), l.payload.as_str())).collect();
    assert_eq!(found, [("story/aborting", "crashed", r#"{"key":"k2","n":2}"#)]);
    let effects = world.number("SELECT COUNT(DISTINCT sample) FROM story_effects").await;
    assert_eq!((effects, world.count("story_effects").await), (ALL - 1, ALL - 1));
}

/// An address without a listener.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

on_every_database! {
    async fn a_message_that_ends_its_process_is_buried_after_a_few_lives_over_a_classic_queue(db: &TempDatabase) {
        let (world, broker) = (World::open(db).await, Broker::classic());
        broker.publish(&messages()).await;
        let config = VictimConfig { queue: Some(broker.queue.clone()), ..config(db) };
        let deaths = supervised(&config, async || is_over(&world).await).await;
        assert!(deaths <= DEATHS, "{deaths} deaths");
        one_is_buried_and_the_others_are_handled(&world).await;
        broker.is_empty().await;
    }

    async fn a_message_that_ends_its_process_is_buried_after_a_few_lives_over_http(db: &TempDatabase) {
        let (world, address) = (World::open(db).await, free_address());
        let publisher = HttpPublisher::new(format!("http://{address}/events")).unwrap().allow_loopback().build().unwrap();
        // As a relay does: one message of a key at a time, repeated until it is confirmed.
        let of_key = |key: u64| {
            let publisher = &publisher;
            let of_key = messages().into_iter().filter(move |m| m.key.as_deref() == Some(&format!("k{key}")));
            async move {
                for message in of_key {
                    wait_until(LATE, "it is confirmed", async || publisher.publish(&message).await.is_ok()).await;
                }
            }
        };
        let sent = join_all((0..KEYS).map(of_key));
        let config = VictimConfig { http: Some(address), ..config(db) };
        let (deaths, _) = tokio::join!(supervised(&config, async || is_over(&world).await), sent);
        assert!(deaths <= DEATHS, "{deaths} deaths");
        one_is_buried_and_the_others_are_handled(&world).await;
    }

    async fn one_of_three_instances_after_the_other_dies_of_a_message_until_it_is_buried(db: &TempDatabase) {
        let (world, broker) = (World::open(db).await, Broker::classic());
        broker.publish(&messages()).await;
        let config = VictimConfig { queue: Some(broker.queue.clone()), ..config(db) };
        let instances = join_all((0..3).map(|_| supervised(&config, async || is_over(&world).await))).await;
        // Each instance may crash of it once before it knows of a crash.
        assert!(instances.iter().sum::<usize>() <= DEATHS + 2, "{instances:?}");
        one_is_buried_and_the_others_are_handled(&world).await;
        broker.is_empty().await;
    }

    async fn a_healthy_instance_that_is_killed_costs_no_letter_and_no_second_effect(db: &TempDatabase) {
        let (world, broker) = (World::open(db).await, Broker::classic());
        let config = VictimConfig { queue: Some(broker.queue.clone()), handler: "effect".into(), ..config(db) };
        let all: Vec<Message> = (1..=50).flat_map(|n| (0..KEYS).map(move |key| message(&format!("k{key}"), n))).collect();
        broker.publish(&all).await;
        let (mut first, mut second) = (victim(&config).await, victim(&config).await);
        wait_until(SOON, "they are at work", async || world.count("outbox_inbox").await > 10).await;
        first.kill().await;
        broker.publish(&messages()).await;
        let both = i64::try_from(all.len()).unwrap() + ALL;
        let over = async || world.count("outbox_inbox").await == both && world.count("outbox_deferred").await == 0;
        wait_until(LATE, "all are handled", over).await;
        second.terminate(SOON).await;
        broker.is_empty().await;
        assert_eq!((world.count("story_effects").await, world.count("outbox_dead_letters").await), (both, 0));
    }
}

#[cfg(feature = "kafka")]
mod records {
    use super::*;
    use crate::support::kafka;
    use outbox_kafka::KafkaPublisher;
    use outbox_sea_orm::{event::MessageId, transport::publish_all};
    use std::time::Duration;
    use tests::servers::kafka as kafka_broker;

    on_every_database! {
        async fn a_record_that_ends_its_process_is_buried_after_a_few_lives(db: &TempDatabase) {
            let (world, url) = (World::open(db).await, kafka_broker::shared_url());
            let topic = format!("outbox-test.story.{}", MessageId::generate());
            let publisher = KafkaPublisher::new(&url).unwrap().topic(&topic).declare([kafka::declared(&topic)]);
            let outcomes = publish_all(&publisher.timeout(Duration::from_secs(5)), &messages()).await;
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            let config = VictimConfig { kafka: Some((url, topic)), ..config(db) };
            let deaths = supervised(&config, async || is_over(&world).await).await;
            assert!(deaths <= DEATHS, "{deaths} deaths");
            one_is_buried_and_the_others_are_handled(&world).await;
        }
    }
}
