//! What a delivery that shares its transaction notices of its neighbours.

use crate::{
    script::{Actor, Script, What},
    world::{Handle, Receiving, SOON, World, handle, message},
};
use outbox_core::{
    consumer::{ConcurrencyLimit, Consumer, HandlerOptions, Timeout},
    transport::Delivery,
};
use outbox_sea_orm::event::Message;
use sea_orm::{ConnectionTrait, TransactionTrait};
use std::{collections::BTreeMap, time::Duration};
use tests::{
    databases::{Database, TempDatabase},
    in_time, on_every_database, wait_until,
};
use tokio::sync::{mpsc, oneshot};

fn messages(what: impl Fn(u32) -> What, n: u32) -> Vec<Message> {
    (0..n).map(|n| message(n, None, what(n))).collect()
}

/// Attempts of the effects by number.
async fn attempts(world: &World, handler: &str) -> BTreeMap<i64, i64> {
    let left = world.left(handler).await;
    left.effects.into_iter().map(|(_, n, attempt)| (n, attempt)).collect()
}

on_every_database! {
    async fn a_failure_costs_its_neighbours_nothing_but_a_second_run(db: &TempDatabase) {
        let (world, actor) = (World::open(db).await, Actor::default());
        let sent = messages(|n| if n == 7 { What::Rejects } else { What::Ends }, 200);
        let consumer = world.consumer("c", &actor).concurrency(1).prefetch(64).batch_eagerly();
        let stats = handle(&world, consumer, &sent).await;
        let effects = attempts(&world, "c").await;
        assert_eq!(effects.len(), 199, "all but the rejected one");
        assert!(effects.values().all(|attempt| *attempt == 1), "no attempt was counted in a batch: {effects:?}");
        let letters = world.left("c").await.letters;
        assert_eq!((letters.len(), letters[0].1.as_str(), letters[0].2), (1, "rejected", 1));
        assert_eq!((stats.handled, stats.dead_lettered, stats.retried, stats.disturbed), (199, 1, 0, 0));
        assert!(stats.batches > 0 && stats.batches_rolled_back > 0, "{stats:?}");
        let runs = actor.runs.lock().unwrap().len();
        assert!(runs > 200, "{runs}: its neighbours ran once more");
    }

    async fn handlers_share_transactions_when_they_are_known_to_be_fast(db: &TempDatabase) {
        let (world, actor) = (World::open(db).await, Actor::default());
        let sent = messages(|_| What::Emits, 200);
        let consumer = || world.consumer("c", &actor).concurrency(1).prefetch(64);
        let stats = handle(&world, consumer(), &sent).await;
        assert_eq!((stats.handled, actor.runs.lock().unwrap().len()), (200, 200), "{stats:?}");
        assert!((1..192).contains(&stats.batches), "the first ones run alone: {stats:?}");
        assert_eq!(world.left("c").await.told.len(), 200);
        // Where it is asked for, each has its own.
        let stats = handle(&world, consumer().one_by_one(), &messages(|_| What::Emits, 100)).await;
        assert_eq!((stats.handled, stats.batches), (100, 0));
    }

    async fn a_handler_that_waits_keeps_its_neighbours_for_three_seconds_at_most(db: &TempDatabase) {
        let (world, actor) = (World::open(db).await, Actor::default());
        let sent = messages(|n| if n == 5 { What::Sleeps(3_400) } else { What::Ends }, 20);
        let consumer = world.consumer("c", &actor).concurrency(1).prefetch(64).batch_eagerly();
        let stats = handle(&world, consumer, &sent).await;
        assert_eq!((stats.handled, stats.timed_out, attempts(&world, "c").await.len()), (20, 0, 20));
        assert!(stats.batches_rolled_back > 0, "{stats:?}");
    }

    async fn a_hook_before_the_commit_that_waits_keeps_its_neighbours_for_three_seconds_at_most(db: &TempDatabase) {
        let (world, actor) = (World::open(db).await, Actor::default());
        let sent = messages(|n| if n == 5 { What::SleepsLate(3_400) } else { What::Ends }, 20);
        let consumer = world.consumer("c", &actor).concurrency(1).prefetch(64).batch_eagerly();
        let stats = handle(&world, consumer, &sent).await;
        assert_eq!((stats.handled, stats.timed_out, attempts(&world, "c").await.len()), (20, 0, 20));
        assert!(stats.batches_rolled_back > 0, "{stats:?}");
        let committed = actor.committed.lock().unwrap();
        assert!(committed.len() == 20 && committed.values().all(|times| *times == 1), "{committed:?}");
    }

    async fn a_row_that_a_stranger_has_locked_keeps_no_neighbour_waiting(db: &TempDatabase) {
        if db.database() == Database::Sqlite {
            // Whoever has locked a row there has locked all of them.
            return;
        }
        let (world, actor) = (World::open(db).await, Actor::default());
        world.add_locks("c").await;
        let (sender, receiver) = mpsc::unbounded_channel();
        let consumer = world.consumer("c", &actor).concurrency(2).prefetch(64).batch_eagerly();
        let running = consumer.subscribe(Receiving(receiver)).start().await.unwrap();
        let mut stats = running.stats();
        stats.wait_for(|stats| !stats.isolating).await.unwrap();
        let deliver = |n, what| {
            let handle = Box::new(Handle(oneshot::channel().0));
            sender.send(Delivery::new(Ok(message(n, None, what)), None, handle)).unwrap();
        };
        let stranger = world.db.begin().await.unwrap();
        let lock = "UPDATE locks SET n = n + 1 WHERE handler = 'c' AND id = 0";
        stranger.execute_unprepared(lock).await.unwrap();
        // While both slots are taken, ten others become ready, which share a transaction then.
        (0..2).for_each(|n| deliver(n, What::Sleeps(300)));
        let runs = || actor.runs.lock().unwrap().len();
        wait_until(SOON, "both slots are taken", async || tests::equals(runs(), 2)).await;
        let what = |n| if n == 6 { What::Locks(0, 0, false) } else { What::Ends };
        (2..12).for_each(|n| deliver(n, what(n)));
        stats.wait_for(|stats| stats.handled == 2).await.unwrap();
        let others = stats.wait_for(|stats| stats.handled == 11);
        // MariaDB checks only once a second whether a wait for a lock has passed its limit of 1 s. Without
        // that limit, which batches have, the statement would wait for 15 s.
        in_time(Duration::from_secs(6), "the nine others are handled", others).await.unwrap();
        assert!(stats.borrow().batches_rolled_back > 0, "{:?}", *stats.borrow());
        stranger.rollback().await.unwrap();
        stats.wait_for(|stats| stats.handled == 12).await.unwrap();
        running.shutdown(SOON).await.unwrap();
        let effects = attempts(&world, "c").await;
        assert_eq!((effects.len(), world.left("c").await.locks), (12, vec![2, 0, 0]));
    }

    async fn a_time_limit_is_the_handlers_own_and_counted_when_it_runs_alone(db: &TempDatabase) {
        let (world, actor) = (World::open(db).await, Actor::default());
        let sent = messages(|n| if n == 5 { What::Sleeps(30_000) } else { What::Ends }, 20);
        let consumer = world.consumer("c", &actor).concurrency(1).prefetch(64).batch_eagerly();
        let stats = handle(&world, consumer.timeout(Duration::from_millis(200)), &sent).await;
        assert_eq!((stats.handled, stats.timed_out, stats.dead_lettered), (19, 3, 1));
        assert!(attempts(&world, "c").await.values().all(|attempt| *attempt == 1));
    }

    async fn what_waits_or_has_effects_elsewhere_runs_alone(db: &TempDatabase) {
        let world = World::open(db).await;
        let options = HandlerOptions::new();
        for (name, options, shares) in [
            ("usual", options, true),
            ("alone", options.alone(), false),
            ("elsewhere", options.no_writes(), false),
            ("untried", options.no_try("it charges a card"), false),
            ("late", options.deferred_lock(), false),
            ("renamed", options.renamed_from("before"), false),
        ] {
            let actor = Actor::default();
            let consumer = Consumer::builder(name, &world.outbox)
                .on_with::<Script, _>(name, options, actor.clone())
                .concurrency(1)
                .prefetch(64)
                .batch_eagerly();
            let stats = handle(&world, consumer, &messages(|_| What::Ends, 30)).await;
            assert_eq!((stats.handled, stats.batches > 0), (30, shares), "{name}");
        }
        for (name, waits) in [("limited", true), ("timed", false)] {
            let consumer = world.consumer(name, &Actor::default()).concurrency(1).prefetch(64);
            let consumer = if waits {
                consumer.layer(ConcurrencyLimit::new(1))
            } else {
                consumer.layer(Timeout(Duration::from_secs(10)))
            };
            let stats = handle(&world, consumer.batch_eagerly(), &messages(|_| What::Ends, 30)).await;
            assert_eq!((stats.handled, stats.batches > 0), (30, !waits), "{name}");
        }
    }

    async fn a_message_with_two_handlers_is_handled_by_each_alone(db: &TempDatabase) {
        let (world, actor) = (World::open(db).await, Actor::default());
        let consumer = world.consumer("c", &actor).on::<Script, _>("second", actor.clone());
        let consumer = consumer.concurrency(1).prefetch(64).batch_eagerly();
        let stats = handle(&world, consumer, &messages(|_| What::Ends, 30)).await;
        assert_eq!((stats.handled, stats.batches), (60, 0));
    }

    async fn instances_that_get_the_same_messages_do_each_once(db: &TempDatabase) {
        let world = World::open(db).await;
        let sent: Vec<Message> = (0..120).map(|n| message(n, Some(&format!("k{}", n % 40)), What::Emits)).collect();
        let reversed: Vec<Message> = sent.iter().rev().cloned().collect();
        // Without keys, whose order the reversed ones would break.
        let (one, other) = (Actor::default(), Actor::default());
        let instance = |actor: &Actor| world.consumer("c", actor).concurrency(2).prefetch(64).batch_eagerly();
        let (first, second) = tokio::join!(
            handle(&world, instance(&one), &sent),
            handle(&world, instance(&other), &reversed)
        );
        assert_eq!(first.handled + second.handled, 120, "{first:?} {second:?}");
        assert_eq!(first.duplicates + second.duplicates, 120);
        assert_eq!((attempts(&world, "c").await.len(), world.left("c").await.effects.len()), (120, 120));
        assert_eq!(world.left("c").await.told.len(), 120);
    }
}
