//! Messages of strangers, and commands to another consumer: only the addressed consumer runs a
//! command, once.

use crate::{
    payments::{Charge, Charged, Refund},
    world::{REPLIES, SOON, World, charge, headers, message, refund},
};
use outbox_core::{
    event::SagaId,
    saga::{CommandHash, replied_by},
};
use outbox_sea_orm::{entity::saga_barrier, prelude::*};
use sea_orm::{ConnectionTrait, EntityTrait};
use tests::{databases::TempDatabase, on_every_database};

/// A command as a saga sends it: with the hash of the one that it has sent first.
fn first(command: Message, how: &str) -> Message {
    let first = format!(r#"{{"how":"{how}"}}"#);
    let mut parts = command.into_parts();
    parts
        .headers
        .insert("sagacommand", CommandHash::of("payment.charge", first.as_bytes()).to_string())
        .unwrap();
    Message::new(parts)
}

fn changed(
    command: Message,
    change: impl FnOnce(&mut outbox_core::event::MessageParts),
) -> Message {
    let mut parts = command.into_parts();
    change(&mut parts);
    Message::new(parts)
}

/// Another type with a command's headers.
fn mixed_up(saga: SagaId) -> Message {
    message(&Refund { how: "reply".into() }, headers(saga, "do"))
}

async fn audited(_: Charge, cx: &HandlerContext) -> Result<(), HandlerError> {
    cx.tx.execute_unprepared("INSERT INTO effects (saga, what) VALUES ('audit', 'charge')").await?;
    Ok(cx.reply(Charged { order: 1, receipt: "audit".into() })?)
}

async fn audited_too(_: Refund, cx: &HandlerContext) -> Result<(), HandlerError> {
    assert!(cx.command_id().is_none(), "to it the command is an event");
    Ok(())
}

on_every_database! {
    async fn a_stranger_s_command_does_nothing_gets_no_reply_and_is_a_letter(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let (queue, _handle) = world.serve(|consumer| consumer).await;
        let strange = [
            changed(charge(saga, "reply"), |m| m.source = "/stranger".into()),
            changed(refund(saga, "reply"), |m| m.source = "/orders/".into()),
            changed(charge(saga, "reply"), |m| m.headers.insert("replyto", "strangers").unwrap()),
            changed(charge(saga, "reply"), |m| m.headers.insert("replyto", "orders.replies.x").unwrap()),
            changed(charge(saga, "reply"), |m| drop(m.headers.remove("replyto"))),
            changed(charge(saga, "reply"), |m| m.headers.insert("sagacommand", "7").unwrap()),
        ];
        for message in &strange {
            queue.send(message.clone()).await;
        }
        assert!(world.effects(saga).await.is_empty() && world.effects("nobody").await.is_empty());
        assert!(world.sent().await.is_empty());
        assert!(saga_barrier::Entity::find().all(&world.db).await.unwrap().is_empty(), "nothing is known of them");
        let letters = world.letters().await;
        assert_eq!(letters.len(), strange.len(), "{letters:?}");
        assert!(letters.iter().all(|(_, reason, _)| reason == "rejected"), "{letters:?}");
        queue.send(charge(saga, "reply")).await;
        assert_eq!(world.reply_types(saga).await, ["payment.charged"], "the command itself is done");
    }

    async fn an_audit_gets_every_command_and_only_the_addressed_consumer_replies(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let (queue, payments) = world.serve(|consumer| consumer).await;
        let (copies, receiving) = crate::world::Queue::open();
        let audit = Consumer::builder("audit", &world.outbox).on("charges", audited).on("refunds", audited_too);
        let audit = audit.subscribe(receiving).start().await.unwrap();
        for command in [charge(saga, "refuse"), charge(saga, "refuse"), refund(saga, "")] {
            copies.send(command.clone()).await;
            queue.send(command).await;
        }
        assert_eq!(world.reply_types(saga).await, ["outbox.saga.rejected", "outbox.saga.rejected", "outbox.saga.undone"], "what payments has said");
        assert!(world.replies(saga).await.iter().all(|sent| replied_by(&sent.headers) == Some("payments")));
        assert_eq!(world.effects("audit").await, ["charge", "charge"], "it hears each message");
        let rows = saga_barrier::Entity::find().all(&world.db).await.unwrap();
        assert!(rows.iter().all(|row| row.consumer == "payments"), "{rows:?}");
        let events: Vec<_> = world.sent().await.into_iter().filter(|sent| sent.topic != REPLIES).collect();
        assert!(events.len() == 2 && events.iter().all(|sent| sent.topic == "payments.told"), "{events:?}");
        for handle in [payments, audit] {
            handle.shutdown(SOON).await.unwrap();
        }
    }

    async fn another_message_with_a_command_s_headers_takes_nothing_from_it(db: &TempDatabase) {
        let world = World::open(db).await;
        let (queue, _handle) = world.serve(|consumer| consumer).await;
        let real = |saga| first(charge(saga, "reply"), "reply");
        let undoing = |saga| first(refund(saga, ""), "reply");
        for (what, strange, done) in [
            ("another content", charge as fn(SagaId, &str) -> Message, "charge"),
            ("another type", |saga, _| mixed_up(saga), "refund"),
        ] {
            for how in ["", "refuse"] {
                let saga = SagaId::generate();
                queue.send(strange(saga, how)).await;
                let known = world.effects(saga).await.len();
                queue.send(real(saga)).await;
                queue.send(real(saga)).await;
                let effects = world.effects(saga).await;
                assert_eq!(effects.len(), known + 1, "{what}, {how}: the command is done, once: {effects:?}");
                let replies = world.replies(saga).await;
                assert_eq!(replies[1].event_type, "payment.charged", "{what}, {how}");
                assert_eq!(replies[1].payload, replies[2].payload, "{what}, {how}: and answered again");
                queue.send(undoing(saga)).await;
                queue.send(undoing(saga)).await;
                let undone = world.effects(saga).await;
                assert_eq!(undone.len(), effects.len() + 1, "{what}, {how}: and undone, once: {undone:?}");
                assert!(effects.contains(&done.to_owned()) || how == "refuse", "{what} is handled for itself");
            }
            let late = SagaId::generate();
            queue.send(strange(late, "")).await;
            let known = world.effects(late).await;
            queue.send(undoing(late)).await;
            queue.send(real(late)).await;
            assert_eq!(world.effects(late).await, known, "{what}: what is undone before it came is not done");
            assert_eq!(world.reply_types(late).await[1..], ["outbox.saga.undone", "outbox.saga.rejected"], "{what}");
            let after = SagaId::generate();
            queue.send(real(after)).await;
            queue.send(strange(after, "")).await;
            queue.send(undoing(after)).await;
            let effects = world.effects(after).await;
            assert_eq!(effects.iter().filter(|effect| *effect == "refund").count(), if done == "refund" { 2 } else { 1 });
        }
        assert!(world.letters().await.is_empty(), "{:?}", world.letters().await);
    }

    async fn a_repeat_whose_content_has_changed_is_answered_and_is_not_done_in_place_of_the_first(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let (queue, _handle) = world.serve(|consumer| consumer).await;
        let repeat = || first(charge(saga, "reply later"), "reply");
        queue.send(repeat()).await;
        let letters = world.letters().await;
        assert!(letters.len() == 1 && letters[0].2.contains("sagacommand"), "{letters:?}");
        assert!(world.effects(saga).await.is_empty() && world.sent().await.is_empty());
        queue.send(first(charge(saga, "reply"), "reply")).await;
        queue.send(repeat()).await;
        assert_eq!((world.effects(saga).await.len(), world.letters().await.len()), (1, 1));
        let replies = world.replies(saga).await;
        assert!(replies.len() == 2 && replies[0].payload == replies[1].payload, "{replies:?}");
    }

    async fn what_an_instance_of_the_version_before_has_noted_is_of_any_command(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let (queue, _handle) = world.serve(|consumer| consumer).await;
        queue.send(charge(saga, "reply")).await;
        world.db.execute_unprepared("UPDATE outbox_saga_barrier SET command_hash = NULL").await.unwrap();
        queue.send(first(charge(saga, "reply"), "reply")).await;
        queue.send(first(refund(saga, ""), "reply")).await;
        assert_eq!(world.effects(saga).await, ["charge", "refund"]);
        assert_eq!(world.reply_types(saga).await, ["payment.charged", "payment.charged", "outbox.saga.undone"]);
    }
}
