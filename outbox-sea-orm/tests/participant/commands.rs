//! What the barrier makes of commands that are repeated, or come in another order.

use crate::world::{REPLIES, World, charge, headers, refund};
use outbox_core::{event::SagaId, outbox::RetrierStore, saga::CommandId};
use outbox_sea_orm::entity::saga_barrier;
use sea_orm::{ConnectionTrait, EntityTrait};
use tests::{databases::TempDatabase, on_every_database};

on_every_database! {
    async fn a_step_is_done_once_however_often_its_command_comes(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let (queue, _handle) = world.serve(|consumer| consumer).await;
        for _ in 0..3 {
            queue.send(charge(saga, "reply")).await;
        }
        assert_eq!(world.effects(saga).await, ["charge"]);
        let replies = world.replies(saga).await;
        assert_eq!(replies.len(), 3);
        let command = CommandId::read(&headers(saga, "do")).unwrap();
        for reply in &replies {
            assert_eq!((reply.event_type.as_str(), reply.version), ("payment.charged", 3));
            assert_eq!((reply.payload.as_slice(), reply.topic.as_str()), (replies[0].payload.as_slice(), REPLIES));
            assert_eq!(CommandId::read(&reply.headers).unwrap(), command);
            assert_eq!((reply.headers.get("tenant"), reply.headers.get("replyto")), (Some("acme"), None));
            assert!(!reply.expires, "a saga waits for it");
        }
        assert!(replies[0].id != replies[1].id && replies[1].id != replies[2].id && replies[0].id != replies[2].id);
    }

    async fn the_same_message_again_is_a_duplicate_and_gets_no_reply(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let (queue, _handle) = world.serve(|consumer| consumer).await;
        let command = charge(saga, "");
        queue.send(command.clone()).await;
        queue.send(command).await;
        assert_eq!(world.reply_types(saga).await, ["outbox.saga.done"]);
        assert_eq!(world.replies(saga).await[0].json(), serde_json::Value::Null);
    }

    async fn what_was_done_is_undone_once(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let (queue, _handle) = world.serve(|consumer| consumer).await;
        queue.send(charge(saga, "")).await;
        queue.send(refund(saga, "reply")).await;
        queue.send(refund(saga, "")).await;
        queue.send(charge(saga, "")).await;
        assert_eq!(world.effects(saga).await, ["charge", "refund"]);
        assert_eq!(world.reply_types(saga).await, ["outbox.saga.done", "payment.charged", "payment.charged", "outbox.saga.done"]);
        let replies = world.replies(saga).await;
        assert_eq!(replies[1].payload, replies[2].payload);
    }

    async fn what_was_never_done_is_not_undone_and_not_done_any_more(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let (queue, _handle) = world.serve(|consumer| consumer).await;
        queue.send(refund(saga, "reply")).await;
        queue.send(charge(saga, "reply")).await;
        queue.send(refund(saga, "reply")).await;
        queue.send(charge(saga, "reply")).await;
        assert!(world.effects(saga).await.is_empty());
        let (undone, rejected) = ("outbox.saga.undone", "outbox.saga.rejected");
        assert_eq!(world.reply_types(saga).await, [undone, rejected, undone, rejected]);
        assert_eq!(world.replies(saga).await[1].json(), serde_json::json!({"reason": "it was undone before it came"}));
    }

    async fn what_was_rejected_is_rejected_again_and_there_is_nothing_to_undo(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let (queue, _handle) = world.serve(|consumer| consumer).await;
        queue.send(charge(saga, "reject and emit")).await;
        queue.send(charge(saga, "reject and emit")).await;
        queue.send(refund(saga, "reply")).await;
        assert!(world.effects(saga).await.is_empty(), "what a handler wrote that says no is rolled back");
        assert_eq!(world.sent().await.len(), 3, "and so is what it emitted");
        assert_eq!(world.reply_types(saga).await, ["payment.declined", "payment.declined", "outbox.saga.undone"]);
        assert_eq!(world.replies(saga).await[1].json(), serde_json::json!({"limit": 100}));
    }

    async fn an_undoing_that_is_refused_is_tried_again(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let (queue, _handle) = world.serve(|consumer| consumer).await;
        queue.send(charge(saga, "")).await;
        queue.send(refund(saga, "refuse")).await;
        queue.send(refund(saga, "reject")).await;
        assert_eq!(world.effects(saga).await, ["charge"]);
        queue.send(refund(saga, "")).await;
        assert_eq!(world.effects(saga).await, ["charge", "refund"]);
        assert_eq!(world.reply_types(saga).await, ["outbox.saga.done", "outbox.saga.rejected", "payment.declined", "outbox.saga.undone"]);
        assert_eq!(world.replies(saga).await[1].json(), serde_json::json!({"reason": "over the limit"}));
    }

    async fn rounds_steps_sagas_and_consumers_are_apart(db: &TempDatabase) {
        let (world, saga, other) = (World::open(db).await, SagaId::generate(), SagaId::generate());
        let (queue, _handle) = world.serve(|consumer| consumer).await;
        let mut commands = vec![charge(saga, ""), charge(other, "")];
        for (name, value) in [("sagastep", "charge "), ("sagaround", "2"), ("sagaround", "4294967295")] {
            let mut parts = charge(saga, "").into_parts();
            parts.headers.insert(name, value).unwrap();
            commands.push(outbox_sea_orm::prelude::Message::new(parts));
        }
        for command in commands {
            queue.send(command).await;
        }
        assert_eq!((world.effects(saga).await.len(), world.effects(other).await.len()), (4, 1));
    }

    async fn what_is_known_is_forgotten_in_time_and_in_bounds(db: &TempDatabase) {
        let world = World::open(db).await;
        let (queue, handle) = world.serve(|consumer| consumer).await;
        for _ in 0..3 {
            queue.send(refund(SagaId::generate(), "")).await;
        }
        queue.send(charge(SagaId::generate(), "reply")).await;
        handle.shutdown(crate::world::SOON).await.unwrap();
        let rows = saga_barrier::Entity::find().all(&world.db).await.unwrap();
        let days = |row: &saga_barrier::Model| (row.keep_until - row.written_at) / (24 * 3_600_000_000);
        assert!(rows.iter().all(|row| days(row) == 90), "{rows:?}");
        assert_eq!(rows.iter().filter(|row| row.outcome == "blocked" && row.event_type.is_none()).count(), 3);
        assert_eq!(world.outbox.prune_inbox(100).await.unwrap(), 0);
        world.db.execute_unprepared("UPDATE outbox_saga_barrier SET keep_until = 1 WHERE outcome <> 'done'").await.unwrap();
        assert_eq!(world.outbox.prune_inbox(4).await.unwrap(), 4);
        assert_eq!(world.outbox.prune_inbox(4).await.unwrap(), 2);
        let left = saga_barrier::Entity::find().all(&world.db).await.unwrap();
        let shown = |row: &saga_barrier::Model| (row.event_type.clone(), row.event_version, row.phase.clone());
        let charged = (Some("payment.charged".to_owned()), Some(3), "do".to_owned());
        assert_eq!(left.iter().map(shown).collect::<Vec<_>>(), [charged]);
    }

    async fn the_table_refuses_what_no_rule_leads_to(db: &TempDatabase) {
        let world = World::open(db).await;
        let row = |round: i64, phase: &str, outcome: &str, reply: &str| {
            format!(
                "INSERT INTO outbox_saga_barrier (consumer, saga_id, step, round, phase, outcome, event_type, \
                 event_version, content_type, payload, headers, written_at, keep_until) SELECT 'c', message_id, 's', \
                 {round}, '{phase}', '{outcome}', {reply}, 1, 1 FROM outbox_events"
            )
        };
        let tx = world.outbox.begin().await.unwrap();
        tx.emit(crate::payments::Declined { limit: 0 }).unwrap();
        tx.commit().await.unwrap();
        let (none, whole) = ("NULL, NULL, NULL, NULL, NULL", "'a', 1, 'b', payload, '{}'");
        for impossible in [
            row(0, "do", "done", none),
            row(1, "redo", "done", none),
            row(1, "do", "undone", none),
            row(1, "undo", "done", none),
            row(1, "undo", "blocked", none),
            row(1, "do", "rejected", none),
            row(1, "do", "blocked", whole),
            row(1, "do", "done", "'a', NULL, NULL, NULL, NULL"),
            row(1, "do", "done", "NULL, NULL, NULL, NULL, '{}'"),
        ] {
            assert!(world.db.execute_unprepared(&impossible).await.is_err(), "{impossible}");
        }
        world.db.execute_unprepared(&row(1, "do", "rejected", whole)).await.unwrap();
        world.db.execute_unprepared(&row(1, "undo", "undone", none)).await.unwrap();
    }
}
