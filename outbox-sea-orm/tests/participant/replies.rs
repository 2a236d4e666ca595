//! The replies of handlers, and the messages that get one.

use crate::{
    payments::{Charge, Refund},
    world::{Acknowledged, REPLIES, World, charge, headers, message},
};
use outbox_core::{
    event::{Headers, SagaId},
    saga::{CommandId, CommandPhase},
};
use outbox_sea_orm::prelude::*;
use std::sync::{Arc, Mutex};
use tests::{databases::TempDatabase, on_every_database};

on_every_database! {
    async fn a_reply_to_an_event_is_emitted_under_its_own_topic(db: &TempDatabase) {
        let world = World::open(db).await;
        let (queue, _handle) = world.serve(|consumer| consumer).await;
        for how in ["reply", "reject"] {
            queue.send(message(&Charge { how: how.into() }, Headers::new())).await;
        }
        assert_eq!(world.effects("nobody").await, ["charge", "charge"], "what is no command stays done");
        let sent = world.sent().await;
        let [charged, declined] = sent.as_slice() else { panic!("{sent:?}") };
        assert_eq!((charged.topic.as_str(), charged.key.as_deref()), ("payments.told", Some("7")));
        assert!(charged.expires && charged.headers.get("tenant") == Some("acme"));
        assert_eq!((declined.event_type.as_str(), declined.key.as_deref()), ("payment.declined", None));
    }

    async fn an_event_that_is_no_command_gets_no_rejection(db: &TempDatabase) {
        let world = World::open(db).await;
        let once = RetryPolicy::attempts(1, std::time::Duration::from_secs(1));
        let (queue, _handle) = world.serve(|consumer| consumer.retry(once)).await;
        queue.send(message(&Charge { how: "refuse".into() }, Headers::new())).await;
        let letters = world.letters().await;
        assert!(letters.len() == 1 && letters[0].2.contains("no command of a saga"), "{letters:?}");
        assert!(world.effects("nobody").await.is_empty());
    }

    async fn a_second_reply_is_refused(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let once = RetryPolicy::attempts(1, std::time::Duration::from_secs(1));
        let (queue, _handle) = world.serve(|consumer| consumer.retry(once)).await;
        queue.send(charge(saga, "twice")).await;
        let letters = world.letters().await;
        assert!(letters.len() == 1 && letters[0].2.contains("has replied already"), "{letters:?}");
        assert!(world.effects(saga).await.is_empty() && world.sent().await.is_empty());
        // Nothing of it is known: the saga may ask again.
        queue.send(charge(saga, "reply")).await;
        assert_eq!(world.reply_types(saga).await, ["payment.charged"]);
    }

    async fn a_reply_is_no_command(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let record = |_: Refund, cx: &HandlerContext| {
            assert!(cx.command_id().is_none());
            std::future::ready(Ok::<(), OutboxError>(()))
        };
        let (queue, handle) = world.serve(|consumer| consumer.on("told", record)).await;
        for _ in 0..2 {
            let mut reply = headers(saga, "do");
            reply.remove("replyto");
            queue.send(message(&Refund { how: String::new() }, reply)).await;
        }
        assert_eq!(handle.stats().borrow().handled, 2, "an event handler runs for each");
        assert!(world.sent().await.is_empty() && world.effects("nobody").await.is_empty());
        let letters = world.letters().await;
        assert_eq!(letters.len(), 2, "and the one for commands for none");
        assert!(letters[0].2.contains("no topic for the reply"), "{letters:?}");
    }

    async fn a_handler_knows_whose_command_it_does(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let seen: Arc<Mutex<Vec<Option<CommandId>>>> = Arc::default();
        let (queue, receiving) = crate::world::Queue::open();
        let noting = {
            let seen = seen.clone();
            move |_: Charge, cx: &HandlerContext| {
                seen.lock().unwrap().push(cx.command_id().cloned());
                std::future::ready(Ok::<(), OutboxError>(()))
            }
        };
        let consumer = Consumer::builder("noting", &world.outbox).on_command("charge", noting).commands_from("/orders", REPLIES).subscribe(receiving);
        let _handle = consumer.start().await.unwrap();
        assert_eq!(queue.deliver(charge(saga, "")).await, Acknowledged::Ack);
        assert_eq!(queue.deliver(message(&Charge { how: String::new() }, Headers::new())).await, Acknowledged::Ack);
        let seen = seen.lock().unwrap().clone();
        let [Some(command), None] = seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!((command.saga, command.step.as_str(), command.round.get(), command.phase), (saga, "charge", 1, CommandPhase::Do));
    }
}
