//! The barrier in all ways of handling a delivery.

use crate::world::{SOON, World, charge, refund};
use futures_util::future::join_all;
use outbox_core::{consumer::AckMode, event::SagaId};
use outbox_sea_orm::prelude::*;
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database, wait_until};

on_every_database! {
    async fn a_batch_has_many_commands_and_repeats_of_them(db: &TempDatabase) {
        let world = World::open(db).await;
        let (queue, _handle) = world.serve(|consumer| consumer.batched(16).concurrency(2)).await;
        let sagas: Vec<SagaId> = (0..12).map(|_| SagaId::generate()).collect();
        let how = ["reply", "", "refuse", "fail-first"];
        let commands = sagas.iter().zip(how.iter().cycle()).flat_map(|(saga, how)| [charge(*saga, how), charge(*saga, how)]);
        join_all(commands.map(|command| queue.send(command))).await;
        for (saga, how) in sagas.iter().zip(how.iter().cycle()) {
            let reply = match *how {
                "reply" => "payment.charged",
                "refuse" => "outbox.saga.rejected",
                _ => "outbox.saga.done",
            };
            assert_eq!(world.reply_types(*saga).await, [reply, reply], "{how}");
            assert_eq!(world.effects(*saga).await.len(), usize::from(*how != "refuse"), "{how}");
        }
        join_all(sagas.iter().map(|saga| queue.send(refund(*saga, "")))).await;
        for saga in &sagas {
            assert_eq!(world.reply_types(*saga).await[2..], ["outbox.saga.undone"]);
        }
    }

    async fn a_command_that_is_retried_later_is_answered_then(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let soon = RetryPolicy::attempts(5, Duration::from_millis(50));
        let (queue, handle) = world.serve(|consumer| consumer.max_unacked_time(Duration::ZERO).retry(soon)).await;
        queue.send(charge(saga, "fail-first reply")).await;
        wait_until(SOON, "it is answered", async || tests::equals(world.reply_types(saga).await, ["outbox.saga.done"])).await;
        assert_eq!((world.effects(saga).await.len(), handle.stats().borrow().stored), (1, 1));
    }

    async fn a_command_that_waits_for_a_retry_is_undone_before_it_is_done(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let soon = RetryPolicy::attempts(2, Duration::from_millis(200)).endless();
        let (queue, _handle) = world.serve(|consumer| consumer.max_unacked_time(Duration::ZERO).retry(soon)).await;
        queue.send(charge(saga, "fail")).await;
        queue.send(refund(saga, "")).await;
        wait_until(SOON, "both are answered", async || tests::equals(world.reply_types(saga).await.len(), 2)).await;
        assert_eq!(world.reply_types(saga).await, ["outbox.saga.undone", "outbox.saga.rejected"]);
        assert!(world.effects(saga).await.is_empty());
    }

    async fn deliveries_that_are_acknowledged_first_or_by_hand_have_their_barrier_too(db: &TempDatabase) {
        let world = World::open(db).await;
        let (queue, handle) = world.serve(|consumer| consumer.acknowledge(AckMode::Before)).await;
        let saga = SagaId::generate();
        queue.send(charge(saga, "reply")).await;
        queue.send(charge(saga, "reply")).await;
        handle.shutdown(SOON).await.unwrap();
        assert_eq!((world.effects(saga).await.len(), world.reply_types(saga).await.len()), (1, 2));

        let (queue, handle) = world.serve(|consumer| consumer.acknowledge(AckMode::Manual)).await;
        let saga = SagaId::generate();
        queue.send(charge(saga, "reply")).await;
        queue.send(charge(saga, "reply")).await;
        handle.shutdown(SOON).await.unwrap();
        assert_eq!((world.effects(saga).await.len(), world.reply_types(saga).await.len()), (1, 2));
    }
}
