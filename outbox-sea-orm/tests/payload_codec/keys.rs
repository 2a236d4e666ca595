//! Keys that come later, keys that were replaced, and content that no key opens.

use crate::world::{CANARY, SOON, Seen, World, card, flipping, noting, received, relay};
use outbox_core::transport::Publisher;
use outbox_sea_orm::prelude::*;
use tests::{databases::TempDatabase, on_every_database, wait_until};

/// Waits until one delivery waits for a key.
async fn waits_for(world: &World, key: &str) {
    wait_until(SOON, "a delivery waits for its key", async || {
        let awaited: Vec<_> = world
            .deferred()
            .await
            .into_iter()
            .map(|row| (row.awaits_kind.unwrap_or_default(), row.awaits.unwrap_or_default()))
            .collect();
        tests::equals(awaited, vec![("key".to_owned(), key.to_owned())])
    })
    .await;
}

on_every_database! {
    async fn a_delivery_waits_until_its_key_comes_and_an_old_key_still_decodes(db: &TempDatabase) {
        let (sends, here) = (flipping(["k1"]), flipping([]));
        let world = World::open(db, &sends).await;
        let codec = here.clone();
        let outbox = world.beside(|outbox| outbox.payload_decoder(codec)).await;
        let (relay, queue) = relay(&world.outbox).await;
        let seen = Seen::default();
        let consumer = noting(&outbox, &seen, queue).start().await.unwrap();
        world.emit([7]).await;
        waits_for(&world, "flip/k1").await;
        assert!(seen.all().is_empty() && world.letters().await.is_empty());
        here.rotate("k1");
        world.sees(&seen, &[7]).await;
        for key in ["k2", "k1"] {
            sends.rotate(key);
            here.rotate("k2");
            world.emit([if key == "k2" { 8 } else { 9 }]).await;
        }
        world.sees(&seen, &[7, 8, 9]).await;
        let stats = *consumer.stats().borrow();
        assert_eq!((stats.handed_over, stats.dead_lettered), (1, 0), "{stats:?}");
        relay.shutdown(SOON).await.unwrap();
        consumer.shutdown(SOON).await.unwrap();
    }

    async fn an_instance_without_the_codec_leaves_its_messages_to_one_that_has_it(db: &TempDatabase) {
        let world = World::open(db, &flipping(["k1"])).await;
        let old = world.beside(|outbox| outbox).await;
        let (relay, queue) = relay(&world.outbox).await;
        let (at_old, at_new) = (Seen::default(), Seen::default());
        let without = noting(&old, &at_old, queue).start().await.unwrap();
        world.emit([7]).await;
        waits_for(&world, "flip/k1").await;
        let (_nothing, empty) = Memory::channel();
        let with = noting(&world.outbox, &at_new, empty).start().await.unwrap();
        world.sees(&at_new, &[7]).await;
        assert!(at_old.all().is_empty());
        relay.shutdown(SOON).await.unwrap();
        for consumer in [without, with] {
            consumer.shutdown(SOON).await.unwrap();
        }
    }

    async fn a_key_that_never_comes_makes_a_letter_when_its_time_is_over(db: &TempDatabase) {
        let world = World::open(db, &flipping(["k1"])).await;
        let codec = flipping([]);
        let outbox = world.beside(|outbox| outbox.payload_decoder(codec)).await;
        let (publisher, queue) = Memory::channel();
        let consumer = noting(&outbox, &Seen::default(), queue).keep_unknown(std::time::Duration::ZERO);
        let consumer = consumer.start().await.unwrap();
        publisher.publish(&received(&flipping(["k1"]), &card(7))).await.unwrap();
        let letters = world.letters().await;
        assert!(letters.len() == 1 && letters[0].reason == "unknown_type", "{letters:?}");
        assert!(letters[0].errors.contains("the key `k1` of the payload codec `flip`"), "{letters:?}");
        consumer.shutdown(SOON).await.unwrap();
    }

    async fn one_content_that_no_key_opens_is_a_letter_that_quotes_nothing_and_its_neighbours_are_handled(db: &TempDatabase) {
        let codec = flipping(["k1"]);
        let world = World::open(db, &codec).await;
        let (publisher, queue) = Memory::channel();
        let seen = Seen::default();
        let consumer = noting(&world.outbox, &seen, queue).start().await.unwrap();
        let moved = |customer: i64| {
            let mut parts = received(&codec, &card(customer)).into_parts();
            parts.key = Some("99".to_owned());
            Message::new(parts)
        };
        let all = [received(&codec, &card(7)), moved(8), received(&codec, &card(9))];
        for outcome in outbox_core::transport::publish_all(&publisher, &all).await {
            outcome.unwrap();
        }
        world.sees(&seen, &[7, 9]).await;
        let letters = world.letters().await;
        assert!(letters.len() == 1 && letters[0].reason == "undecodable", "{letters:?}");
        assert!(letters[0].errors.contains("its tag does not fit"), "{letters:?}");
        assert!(world.columns_with(CANARY, &[]).await.is_empty());
        consumer.shutdown(SOON).await.unwrap();
    }
}
