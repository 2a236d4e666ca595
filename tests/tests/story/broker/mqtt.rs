//! The relay and the consumer over MQTT: a process is killed under load, and each effect happens
//! once.

use crate::support::{LATE, SOON, VictimConfig, World, consumer, message, mqtt, victim};
use outbox_mqtt::MqttPublisher;
use outbox_sea_orm::transport::publish_all;
use tests::{databases::TempDatabase, on_every_database, servers::mosquitto, wait_until};

/// The topic of the messages.
const TOPIC: &str = "story";

on_every_database! {
    async fn a_consumer_that_is_killed_under_load_costs_no_message_and_no_second_effect(db: &TempDatabase) {
        const KEYS: u64 = 20;
        const EACH: u64 = 30;
        let (world, server) = (World::open(db).await, mosquitto::start().await);
        // The session has to be there before the first message.
        mqtt::session(&server.url(), TOPIC).connect().await.unwrap();
        let config = VictimConfig { url: db.url().to_owned(), mqtt: Some((server.url(), TOPIC.to_owned())), ..VictimConfig::default() };
        let mut first = victim(&config).await;
        let publisher = MqttPublisher::new(server.url()).unwrap().topic(|_| TOPIC.to_owned());
        let publish = async |range: std::ops::RangeInclusive<u64>| {
            for n in range {
                let batch: Vec<_> = (0..KEYS).map(|key| message(&format!("k{key}"), n)).collect();
                let outcomes = publish_all(&publisher, &batch).await;
                assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            }
        };
        publish(1..=EACH / 3).await;
        wait_until(LATE, "the first one is at work", async || tests::above(world.count("story_effects").await, 0)).await;
        let (_, ()) = tokio::join!(publish(EACH / 3 + 1..=2 * EACH / 3), first.kill());
        publish(2 * EACH / 3 + 1..=EACH).await;
        let second = consumer(&world.outbox, "effect").subscribe(mqtt::session(&server.url(), TOPIC)).start().await.unwrap();
        let all = i64::try_from(KEYS * EACH).unwrap();
        wait_until(LATE, "all are handled", async || world.count("story_effects").await >= all).await;
        second.shutdown(SOON).await.unwrap();
        assert_eq!((world.count("story_effects").await, world.count("outbox_inbox").await), (all, all));
        assert_eq!(world.count("outbox_dead_letters").await, 0);
    }
}
