//! Replies that the barrier keeps encoded.

use crate::world::{SOON, Sent, World, charge};
use outbox_core::{
    event::{MessageParts, PayloadCodecs, SagaId, Timestamp},
    testing::FlippingCodec,
};
use outbox_sea_orm::{entity::saga_barrier, prelude::*};
use sea_orm::EntityTrait;
use std::sync::Arc;
use tests::{databases::TempDatabase, on_every_database, wait_until};

/// The message that a saga receives.
fn received(sent: &Sent) -> Message {
    Message::new(MessageParts {
        id: sent.id.parse().unwrap(),
        sequence: None,
        source: "payments".into(),
        event_type: sent.event_type.clone(),
        event_version: 3,
        topic: sent.topic.clone(),
        aggregate_type: None,
        key: sent.key.clone(),
        content_type: "application/json".into(),
        payload: sent.payload.clone().into(),
        headers: sent.headers.clone(),
        created_at: Timestamp::from_micros(1),
        expires_at: None,
        retry: None,
    })
}

on_every_database! {
    async fn a_repeated_command_gets_its_reply_again_encoded_for_its_own_id_once_the_key_is_there(db: &TempDatabase) {
        let (codec, saga) = (Arc::new(FlippingCodec::new("flip", ["k1"])), SagaId::generate());
        let encodes = codec.clone();
        let world = World::open_with(db, |outbox| outbox.payload_codec(encodes)).await;
        let (queue, _handle) = world.serve(|consumer| consumer).await;
        queue.send(charge(saga, "reply")).await;
        let rows = saga_barrier::Entity::find().all(&world.db).await.unwrap();
        let kept = rows[0].payload.as_deref().expect("the reply is kept");
        assert!(!String::from_utf8_lossy(kept).contains("receipt"), "it is clear");

        codec.destroy("k1");
        queue.send(charge(saga, "reply")).await;
        assert_eq!(world.replies(saga).await.len(), 1, "the repeat waits for the key");
        codec.rotate("k1");
        wait_until(SOON, "the repeat is answered", async || {
            tests::equals(world.replies(saga).await.len(), 2)
        }).await;
        let decodes = PayloadCodecs::NONE.decode_with(codec);
        let clear = |sent: &Sent| decodes.decode(&received(sent)).expect("it belongs to its id").payload.clone();
        let replies = world.replies(saga).await;
        assert_ne!(replies[0].id, replies[1].id);
        assert_eq!(clear(&replies[0]), clear(&replies[1]), "the same receipt");
        assert_eq!(world.effects(saga).await, ["charge"], "the handler ran once");
        assert!(world.letters().await.is_empty());
    }
}
