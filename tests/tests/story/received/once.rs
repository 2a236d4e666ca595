//! Repeated deliveries of a message.

use crate::support::{AckDecision, Cx, Queue, SOON, Sample, World, consumer, message};
use futures_util::future::join_all;
use outbox_sea_orm::consumer::HandlerError;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tests::{databases::TempDatabase, on_every_database};

on_every_database! {
    async fn the_same_message_delivered_a_hundred_times_at_once_has_one_effect(db: &TempDatabase) {
        let world = World::open(db).await;
        let (queue, subscriber) = Queue::open();
        let handle = consumer(&world.outbox, "effect").subscribe(subscriber).start().await.unwrap();
        let same = message("k0", 1);
        let answers = join_all((0..100).map(|_| queue.deliver(Ok(same.clone())))).await;
        assert!(answers.iter().all(|answer| *answer == AckDecision::Ack), "{answers:?}");
        let stats = *handle.stats().borrow();
        handle.shutdown(SOON).await.unwrap();
        assert_eq!((world.count("story_effects").await, world.count("outbox_inbox").await), (1, 1));
        assert_eq!((stats.handled, stats.duplicates), (1, 99));
    }

    async fn of_two_handlers_of_a_type_the_one_that_succeeds_runs_once(db: &TempDatabase) {
        let world = World::open(db).await;
        let runs = Arc::new(AtomicUsize::new(0));
        let failing = {
            let runs = runs.clone();
            move |_: Sample, _: &Cx| {
                let fails = runs.fetch_add(1, Ordering::SeqCst) < 2;
                async move { if fails { Err("not yet") } else { Ok(()) } }
            }
        };
        let (queue, subscriber) = Queue::open();
        let consumer = consumer(&world.outbox, "effect").on("failing", failing).subscribe(subscriber);
        let handle = consumer.start().await.unwrap();
        assert_eq!(queue.deliver(Ok(message("k0", 1))).await, AckDecision::Ack);
        handle.shutdown(SOON).await.unwrap();
        assert_eq!((runs.load(Ordering::SeqCst), world.count("story_effects").await), (3, 1));
        assert_eq!(world.count("outbox_inbox").await, 2);
    }

    async fn a_batch_has_each_effect_once_whatever_fails_in_it(db: &TempDatabase) {
        let world = World::open(db).await;
        let (queue, subscriber) = Queue::open();
        let picky = |sample: Sample, _: &Cx| async move {
            if sample.n == 7 { Err(HandlerError::reject("seven")) } else { Ok(()) }
        };
        let consumer = consumer(&world.outbox, "effect").on("picky", picky).subscribe(subscriber);
        let messages: Vec<_> = (0..200).map(|n| message(&format!("k{}", n % 50), n)).collect();
        let twice = messages.iter().chain(&messages).map(|m| queue.deliver(Ok(m.clone()))).collect::<Vec<_>>();
        let handle = consumer.batched(20).concurrency(2).start().await.unwrap();
        let answers = join_all(twice).await;
        assert!(answers.iter().all(|answer| *answer == AckDecision::Ack));
        handle.shutdown(SOON).await.unwrap();
        let effects = world.number("SELECT COUNT(DISTINCT sample) FROM story_effects").await;
        assert_eq!((effects, world.count("story_effects").await, world.count("outbox_inbox").await), (200, 200, 400));
        let letters = world.letters().await;
        assert_eq!((letters.len(), letters[0].route.as_str()), (1, "story/picky"));
    }
}
