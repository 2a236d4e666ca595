//! Dead letters of a consumer, and the operator's decisions about them.

use crate::support::{AckDecision, Queue, SOON, World, consumer, message};
use bytes::Bytes;
use outbox_core::{
    admin::Progress,
    event::MessageParts,
    failure::ConsumerOrigin,
    transport::cloudevents::{Fallback, from_json},
};
use outbox_sea_orm::{
    StoreError,
    admin::{AdminStore, DeadLetterFilter, OperatorNote, redrive_all},
    consumer::{Consumer, UnhandledPolicy},
    event::{Message, Timestamp},
    failure::DeadReason,
};
use sea_orm::ConnectionTrait;
use tests::{databases::TempDatabase, on_every_database, wait_until};

/// Bodies that are no event, each with a part of the reason.
fn unreadable() -> Vec<(Vec<u8>, &'static str)> {
    let bomb = [b"{\"a\":".repeat(20_000), b"}".repeat(20_000)].concat();
    let without_id = br#"{"specversion":"1.0","source":"/s","type":"story.sample"}"#.to_vec();
    let headers: String = (0..2_000).map(|n| format!(",\"x{n}\":\"y\"")).collect();
    let many =
        format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"story.sample"{headers}}}"#)
            .into_bytes();
    vec![
        (b"{".to_vec(), "JSON"),
        (bomb, "JSON"),
        (vec![0xff, 0xfe], "JSON"),
        (without_id, "id"),
        (many, "attributes"),
    ]
}

on_every_database! {
    async fn what_cannot_be_read_is_a_letter_with_its_reason_and_stops_nobody(db: &TempDatabase) {
        let world = World::open(db).await;
        let (queue, subscriber) = Queue::open();
        let consumer = consumer(&world.outbox, "effect").unhandled(UnhandledPolicy::DeadLetter).subscribe(subscriber);
        let handle = consumer.start().await.unwrap();
        let fallback = Fallback { topic: None, received_at: Timestamp::from_micros(1) };
        for (body, reason) in unreadable() {
            let read = from_json(&body, &fallback).map_err(|error| error.to_string());
            assert!(read.is_err(), "{reason}");
            assert_eq!(queue.deliver(read).await, AckDecision::Ack, "{reason}");
            let errors = &world.letters().await.pop().unwrap().errors;
            assert!(errors.contains(reason), "{reason}: {errors}");
        }
        let parts = || message("k0", 1).into_parts();
        let never = Message::new(MessageParts { event_version: 0, ..parts() });
        let misshapen = Message::new(MessageParts { payload: Bytes::from_static(b"[]"), ..parts() });
        let unknown = Message::new(MessageParts { event_type: "story.unknown".into(), ..parts() });
        for odd in [never, misshapen, unknown] {
            assert_eq!(queue.deliver(Ok(odd)).await, AckDecision::Ack);
        }
        assert_eq!(queue.deliver(Ok(message("k0", 2))).await, AckDecision::Ack);
        handle.shutdown(SOON).await.unwrap();
        let letters = world.outbox.dead_letters(&DeadLetterFilter::all().consumer("story"), None, 100).await.unwrap();
        assert_eq!(letters.len(), 8);
        let found: Vec<_> = letters[5..].iter().map(|l| (l.reason, l.consumer_origin.as_ref().unwrap().handler.as_str())).collect();
        let expected = [(DeadReason::Undecodable, "effect"), (DeadReason::Undecodable, "effect"), (DeadReason::UnknownType, "")];
        assert_eq!(found, expected);
        assert!(letters[..5].iter().all(|l| l.message.is_none() && l.reason == DeadReason::Undecodable));
        assert!(letters[5].errors[0].text.contains("version 0"), "{}", letters[5].errors[0].text);
        assert_eq!((world.count("story_effects").await, world.count("outbox_deferred").await), (1, 0));
        // They are not the relay's.
        let of_routes = world.outbox.dead_letters(&DeadLetterFilter::all().route("story/effect"), None, 100).await.unwrap();
        assert!(of_routes.is_empty());
    }

    async fn letters_of_consumers_are_listed_redriven_and_discarded_like_the_relays(db: &TempDatabase) {
        let world = World::open(db).await;
        let (queue, subscriber) = Queue::open();
        let troubled = consumer(&world.outbox, "troubled").subscribe(subscriber).start().await.unwrap();
        let rejected: Vec<Message> = (0..3).map(|key| message(&format!("k{key}"), 3)).collect();
        for message in &rejected {
            assert_eq!(queue.deliver(Ok(message.clone())).await, AckDecision::Ack);
        }
        let of_handler = DeadLetterFilter::all().handler("story", "troubled");
        let letters = world.outbox.dead_letters(&of_handler, None, 10).await.unwrap();
        let by = ConsumerOrigin { consumer: "story".into(), handler: "troubled".into() };
        assert!(letters.iter().all(|letter| letter.consumer_origin.as_ref() == Some(&by)));
        let messages: Vec<_> = letters.iter().map(|letter| letter.message.clone().unwrap()).collect();
        assert_eq!(messages, rejected, "byte for byte");
        for nothing in [of_handler.clone().key("k9"), DeadLetterFilter::all().consumer("stor"), DeadLetterFilter::all().handler("story", "effect")] {
            assert!(world.outbox.dead_letters(&nothing, None, 10).await.unwrap().is_empty(), "{nothing:?}");
        }

        // Rejected again: a new letter that names the old one.
        let why = OperatorNote::new("ann", "fixed?");
        let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
        assert_eq!(world.outbox.redrive(&ids[..1], &why).await.unwrap(), ids[..1]);
        assert!(world.outbox.redrive(&ids[..1], &why).await.unwrap().is_empty(), "twice changes nothing");
        wait_until(SOON, "it is rejected again", async || tests::equals(world.count("outbox_dead_letters").await, 4)).await;
        let again = world.outbox.dead_letters(&of_handler, Some(ids[2]), 10).await.unwrap().pop().unwrap();
        assert_eq!((again.previous, again.message.as_ref()), (Some(ids[0]), Some(&rejected[0])));
        assert_eq!(world.outbox.discard(&[again.id], &why).await.unwrap(), [again.id]);
        troubled.shutdown(SOON).await.unwrap();

        // Under a handler of the same name that accepts them.
        let (_queue, subscriber) = Queue::open();
        let healed = Consumer::builder("story", &world.outbox).on("troubled", crate::support::effect).subscribe(subscriber);
        let healed = healed.start().await.unwrap();
        let fixed = Bytes::from_static(br#"{"key":"k1","n":4}"#);
        let resent = world.outbox.resend(ids[1], fixed, &why).await.unwrap().unwrap();
        assert_ne!(resent, rejected[1].id);
        let progress = redrive_all(&world.outbox, &of_handler, &why, |_| {}).await.unwrap();
        assert_eq!(progress, Progress { seen: 1, redriven: 1, ..Progress::default() });
        wait_until(SOON, "both are handled", async || tests::equals(world.count("story_effects").await, 2)).await;
        healed.shutdown(SOON).await.unwrap();
        let effects = world.number("SELECT COUNT(*) FROM story_effects WHERE sample IN ('k1 4', 'k2 3')").await;
        assert_eq!((effects, world.count("outbox_deferred").await), (2, 0));
        assert!(world.outbox.dead_letters(&DeadLetterFilter::all(), None, 10).await.unwrap().is_empty());
        assert_eq!(world.outbox.stats().await.unwrap().dead, 0);
    }

    async fn a_letter_that_the_inbox_has_outlived_is_redriven_by_force_alone(db: &TempDatabase) {
        let world = World::open(db).await;
        let (queue, subscriber) = Queue::open();
        let troubled = consumer(&world.outbox, "troubled").subscribe(subscriber).start().await.unwrap();
        assert_eq!(queue.deliver(Ok(message("k0", 3))).await, AckDecision::Ack);
        troubled.shutdown(SOON).await.unwrap();
        let year = "UPDATE outbox_dead_letters SET dead_at = dead_at - 31536000000000";
        world.db.execute_unprepared(year).await.unwrap();
        let letter = world.outbox.dead_letters(&DeadLetterFilter::all(), None, 1).await.unwrap().pop().unwrap().id;
        let why = OperatorNote::new("ann", "found it");
        let refused = world.outbox.redrive(&[letter], &why).await;
        assert!(matches!(&refused, Err(StoreError::Refused(cause)) if cause.to_string().contains("force")), "{refused:?}");
        assert_eq!(world.outbox.redrive(&[letter], &why.force()).await.unwrap(), [letter]);
        assert_eq!((world.count("outbox_deferred").await, world.count("outbox_inbox").await), (1, 0));
    }

    async fn a_message_of_an_unknown_type_goes_to_whoever_takes_it_after_its_redrive(db: &TempDatabase) {
        let world = World::open(db).await;
        let (queue, subscriber) = Queue::open();
        let narrow = consumer(&world.outbox, "effect").unhandled(UnhandledPolicy::DeadLetter).subscribe(subscriber);
        let narrow = narrow.start().await.unwrap();
        let parts = MessageParts { event_type: "story.unknown".into(), ..message("k0", 1).into_parts() };
        assert_eq!(queue.deliver(Ok(Message::new(parts))).await, AckDecision::Ack);
        narrow.shutdown(SOON).await.unwrap();
        // The type is known by the time it is redriven; here, the message's type is what changes.
        let known = "UPDATE outbox_dead_letters SET event_type = 'story.sample'";
        world.db.execute_unprepared(known).await.unwrap();
        let letter = world.outbox.dead_letters(&DeadLetterFilter::all(), None, 1).await.unwrap().pop().unwrap();
        assert_eq!(letter.reason, DeadReason::UnknownType);
        world.outbox.redrive(&[letter.id], &OperatorNote::new("ann", "known now")).await.unwrap();
        let (_queue, subscriber) = Queue::open();
        let wide = consumer(&world.outbox, "effect").subscribe(subscriber).start().await.unwrap();
        wait_until(SOON, "it is handled", async || tests::equals(world.count("story_effects").await, 1)).await;
        wide.shutdown(SOON).await.unwrap();
        assert_eq!(world.count("outbox_deferred").await, 0);
    }
}
