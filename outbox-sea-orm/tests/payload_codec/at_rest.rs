//! What is stored of an event on its way.

use crate::world::{
    CANARY, CardAdded, FAILS, REJECTED, SOON, Seen, World, card, flipping, noting, relay,
};
use outbox_core::{event::PAYLOAD_CODEC, transport::LimitError};
use outbox_sea_orm::{entity::scheduled, prelude::*};
use sea_orm::{EntityTrait, TransactionTrait};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database, wait_until};

on_every_database! {
    async fn no_column_has_the_clear_content_of_an_event_on_its_whole_way(db: &TempDatabase) {
        let world = World::open(db, &flipping(["k1"])).await;
        world.emit([7, FAILS, REJECTED]).await;
        let tx = world.outbox.begin().await.unwrap();
        let later = EnqueueOptions::new().deliver_in(Duration::from_hours(1));
        tx.emit_with(card(8), later).unwrap();
        tx.emit_with(card(9), EnqueueOptions::new().dedup_key("card-9")).unwrap();
        tx.commit().await.unwrap();
        let txn = world.db.begin().await.unwrap();
        world.outbox.enqueue(&txn, &card(10)).await.unwrap();
        txn.commit().await.unwrap();
        let scheduled = scheduled::Entity::find().all(&world.db).await.unwrap();
        assert!(scheduled.len() == 1 && scheduled[0].headers.contains(PAYLOAD_CODEC), "{scheduled:?}");
        let clear = world.columns_with(CANARY, &[]).await;
        assert!(clear.is_empty(), "saved: {clear:?}");

        let (relay, queue) = relay(&world.outbox).await;
        let seen = Seen::default();
        let consumer = noting(&world.outbox, &seen, queue).start().await.unwrap();
        world.sees(&seen, &[7, 9, 10]).await;
        wait_until(SOON, "one is stored for later, one is a letter, all are published", async || {
            let counts = (world.deferred().await.len(), world.letters().await.len(), world.archived().await);
            tests::equals(counts, (1, 1, 5))
        }).await;
        let (deferred, letters) = (world.deferred().await, world.letters().await);
        assert!(deferred[0].failures == 1 && deferred[0].headers.contains(PAYLOAD_CODEC), "{deferred:?}");
        assert!(letters[0].reason == "rejected" && letters[0].headers.contains(PAYLOAD_CODEC), "{letters:?}");
        let clear = world.columns_with(CANARY, &[]).await;
        assert!(clear.is_empty(), "received: {clear:?}");
        relay.shutdown(SOON).await.unwrap();
        consumer.shutdown(SOON).await.unwrap();
    }

    async fn without_a_codec_the_same_search_finds_the_content(db: &TempDatabase) {
        let codec = flipping(["k1"]);
        let world = World::open(db, &codec).await;
        // One that only decodes does not encode.
        let outbox = world.beside(|outbox| outbox.payload_decoder(codec)).await;
        let tx = outbox.begin().await.unwrap();
        tx.emit(card(7)).unwrap();
        tx.commit().await.unwrap();
        assert_eq!(world.columns_with(CANARY, &[]).await, ["outbox_events.payload"]);
        assert!(world.columns_with(CANARY, &["outbox_events"]).await.is_empty());
    }

    async fn the_same_content_is_a_repeat_though_it_is_encoded_otherwise(db: &TempDatabase) {
        let world = World::open(db, &flipping(["k1"])).await;
        let save = async |card: CardAdded| {
            let tx = world.outbox.begin().await.unwrap();
            tx.emit_with(card, EnqueueOptions::new().dedup_key("card-7")).unwrap();
            tx.commit().await
        };
        save(card(7)).await.unwrap();
        for (customer, same) in [(7, true), (8, false)] {
            match save(card(customer)).await {
                Err(OutboxError::Duplicate { same_bytes, .. }) => assert_eq!(same_bytes, same, "{customer}"),
                other => panic!("{customer}: {other:?}"),
            }
        }
    }

    async fn limits_hold_for_what_travels(db: &TempDatabase) {
        let clear = Message::for_test(&card(7)).unwrap().payload.len();
        let codec = flipping(["k1"]);
        let world = World::open(db, &codec).await;
        // The codec adds a salt and a tag of eight bytes each.
        for (limit, is_taken) in [(clear + 15, false), (clear + 16, true)] {
            let codec = codec.clone();
            let outbox = world.beside(|outbox| outbox.payload_codec(codec).max_payload(limit)).await;
            let tx = outbox.begin().await.unwrap();
            match tx.emit(card(7)) {
                Ok(_) => assert!(is_taken, "{limit}"),
                Err(OutboxError::Limit(LimitError::TooLarge { actual, .. })) => {
                    assert!(!is_taken && actual == clear + 16, "{limit}: {actual}");
                }
                Err(error) => panic!("{error}"),
            }
            tx.rollback().await.unwrap();
        }
    }

    async fn codecs_whose_names_do_not_travel_or_are_the_same_are_refused(db: &TempDatabase) {
        let db = db.connect().await;
        let codec = |name: &str| outbox_core::testing::FlippingCodec::new(name, ["k1"]);
        let builder = Outbox::builder(db).payload_codec(codec("A")).payload_decoder(codec("b")).payload_decoder(codec("b"));
        let error = builder.install().await.expect_err("two faults").to_string();
        assert!(error.contains("not `A`") && error.contains("two payload codecs are called `b`"), "{error}");
    }
}
