//! Deliveries of one command at once, to several instances of the service.

use crate::world::{World, charge, refund};
use futures_util::future::join_all;
use outbox_core::event::SagaId;
use sea_orm::ConnectionTrait;
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
};

/// Rounds of a race: some, or, where the long form is asked for by `OUTBOX_LONG=1`, a thousand.
fn rounds() -> usize {
    if std::env::var_os("OUTBOX_LONG").is_some_and(|value| value == "1") { 1_000 } else { 60 }
}

/// Does and undoes a step at once, each twice, at two instances.
async fn race(world: &World, batch: usize) {
    let (one, first) = world.serve(|consumer| consumer.batched(batch)).await;
    let (other, second) = world.serve(|consumer| consumer.batched(batch)).await;
    let sagas: Vec<SagaId> = (0..rounds()).map(|_| SagaId::generate()).collect();
    for some in sagas.chunks(10) {
        let commands = some.iter().enumerate().flat_map(|(n, saga)| {
            let (does, undoes) = (charge(*saga, "reply"), refund(*saga, "reply"));
            let (here, there) = if n % 2 == 0 { (&one, &other) } else { (&other, &one) };
            [
                here.send(does),
                there.send(undoes),
                there.send(charge(*saga, "reply")),
                here.send(refund(*saga, "reply")),
            ]
        });
        join_all(commands).await;
    }
    for saga in &sagas {
        let (effects, mut reply_types) =
            (world.effects(*saga).await, world.reply_types(*saga).await);
        reply_types.sort_unstable();
        if effects.is_empty() {
            assert_eq!(
                reply_types,
                [
                    "outbox.saga.rejected",
                    "outbox.saga.rejected",
                    "outbox.saga.undone",
                    "outbox.saga.undone"
                ]
            );
        } else {
            assert_eq!(effects, ["charge", "refund"], "once each");
            assert_eq!(reply_types, ["payment.charged"; 4]);
        }
    }
    for handle in [first, second] {
        let stats = *handle.stats().borrow();
        assert_eq!(stats.dead_lettered, 0);
        handle.shutdown(crate::world::SOON).await.unwrap();
    }
}

on_every_database! {
    async fn a_step_that_is_done_and_undone_at_once_has_both_effects_or_none(db: &TempDatabase) {
        race(&World::open(db).await, 1).await;
    }

    async fn in_batches_too(db: &TempDatabase) {
        race(&World::open(db).await, 8).await;
    }

    async fn a_step_that_is_asked_for_many_times_at_once_is_done_once(db: &TempDatabase) {
        let world = World::open(db).await;
        let (one, _first) = world.serve(|consumer| consumer).await;
        let (other, _second) = world.serve(|consumer| consumer).await;
        for _ in 0..5 {
            let saga = SagaId::generate();
            let commands = [&one, &other].into_iter().cycle().take(10);
            join_all(commands.map(|queue| queue.send(charge(saga, "reply")))).await;
            assert_eq!(world.effects(saga).await, ["charge"]);
            let replies = world.replies(saga).await;
            assert_eq!(replies.len(), 10);
            assert!(replies.iter().all(|reply| reply.payload == replies[0].payload));
        }
    }
}

/// On a database whose transactions see what was there when they began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_repeatable_read_too() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let stricter = format!(
        "ALTER DATABASE \"{}\" SET default_transaction_isolation = 'repeatable read'",
        temp.name()
    );
    temp.connect().await.execute_unprepared(&stricter).await.unwrap();
    race(&World::open(&temp).await, 1).await;
}
