//! Failed messages are deferred, with the later ones of their key.

use crate::support::{AckDecision, Cx, Queue, SOON, Sample, World, effect, message};
use futures_util::future::join_all;
use outbox_core::{event::MessageParts, runtime::wall_clock};
use outbox_sea_orm::{
    Outbox,
    consumer::{Consumer, EventHandler, HandlerError},
    event::{Message, Timestamp},
    failure::RetryPolicy,
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tests::{databases::TempDatabase, on_every_database, wait_until};

/// The time to live of a message: some retries of half a second.
const TIME_TO_LIVE: Duration = Duration::from_secs(2);

/// The runs in order, as key and number.
type Log = Arc<Mutex<Vec<(String, u64)>>>;

/// Fails for the first event of each key until `heals` is set.
struct Fragile {
    log: Log,
    heals: Arc<AtomicBool>,
}

impl EventHandler<Sample, Outbox> for Fragile {
    async fn handle(&self, sample: Sample, cx: &Cx) -> Result<(), HandlerError> {
        self.log.lock().unwrap().push((sample.key.clone(), sample.n));
        let fails = sample.n == 1 && !self.heals.load(Ordering::SeqCst);
        effect(sample, cx).await?;
        if fails { Err("down".into()) } else { Ok(()) }
    }
}

async fn fragile(outbox: &Outbox, log: &Log, heals: &Arc<AtomicBool>) -> (Queue, Consumer) {
    let handler = Fragile { log: log.clone(), heals: heals.clone() };
    let (queue, subscriber) = Queue::open();
    let endless = RetryPolicy::default().endless().backoff(Duration::from_millis(500)).factor(1.0);
    let consumer = Consumer::builder("story", outbox)
        .on("fragile", handler)
        .retry(endless)
        .max_unacked_time(Duration::ZERO);
    (queue, consumer.subscribe(subscriber).start().await.unwrap())
}

on_every_database! {
    async fn later_deliveries_of_a_key_wait_behind_a_stored_retry_over_a_restart(db: &TempDatabase) {
        let world = World::open(db).await;
        let (log, heals): (Log, _) = (Arc::default(), Arc::default());
        let (queue, first) = fragile(&world.outbox, &log, &heals).await;
        let sent = [("a", 1), ("a", 2), ("b", 2), ("a", 3)];
        for answer in join_all(sent.map(|(key, n)| queue.deliver(Ok(message(key, n))))).await {
            assert_eq!(answer, AckDecision::Ack);
        }
        assert_eq!((world.count("outbox_deferred").await, world.count("story_effects").await), (3, 1));
        first.shutdown(SOON).await.unwrap();

        let (queue, second) = fragile(&world.outbox, &log, &heals).await;
        assert_eq!(queue.deliver(Ok(message("a", 4))).await, AckDecision::Ack);
        assert_eq!(world.count("outbox_deferred").await, 4);
        heals.store(true, Ordering::SeqCst);
        wait_until(SOON, "nothing is stored", async || tests::equals(world.count("outbox_deferred").await, 0)).await;
        assert_eq!(queue.deliver(Ok(message("a", 5))).await, AckDecision::Ack);
        second.shutdown(SOON).await.unwrap();
        let mut of_a: Vec<u64> = log.lock().unwrap().iter().filter(|(key, _)| key == "a").map(|(_, n)| *n).collect();
        let tries = of_a.iter().take_while(|n| **n == 1).count();
        assert!(tries >= 2, "it failed at least once");
        of_a.drain(..tries - 1);
        assert_eq!(of_a, [1, 2, 3, 4, 5]);
        assert_eq!((world.count("story_effects").await, world.count("outbox_inbox").await), (6, 6));
    }

    async fn what_expires_while_it_waits_for_a_retry_is_a_letter_and_what_waits_behind_it_goes_on(db: &TempDatabase) {
        let world = World::open(db).await;
        let (log, never): (Log, _) = (Arc::default(), Arc::default());
        let (queue, handle) = fragile(&world.outbox, &log, &never).await;
        let soon = Timestamp::from(wall_clock() + TIME_TO_LIVE);
        let brief = Message::new(MessageParts { expires_at: Some(soon), ..message("a", 1).into_parts() });
        for message in [brief.clone(), message("a", 2)] {
            assert_eq!(queue.deliver(Ok(message)).await, AckDecision::Ack);
        }
        wait_until(SOON, "nothing is stored", async || tests::equals(world.count("outbox_deferred").await, 0)).await;
        // The broker delivers it once more: it was acknowledged.
        assert_eq!(queue.deliver(Ok(brief)).await, AckDecision::Ack);
        let stats = *handle.stats().borrow();
        handle.shutdown(SOON).await.unwrap();
        let letters = world.letters().await;
        let found: Vec<_> = letters.iter().map(|l| (l.route.as_str(), l.reason.as_str(), l.payload.as_str())).collect();
        assert_eq!(found, [("story/fragile", "expired", r#"{"key":"a","n":1}"#)]);
        assert_eq!((stats.dead_lettered, stats.duplicates), (1, 1));
        let log = log.lock().unwrap().clone();
        assert_eq!((log.first(), log.last()), (Some(&("a".into(), 1)), Some(&("a".into(), 2))));
        assert_eq!(log.iter().filter(|(_, n)| *n == 2).count(), 1);
        assert_eq!((world.count("story_effects").await, world.count("outbox_inbox").await), (1, 2));
    }

    async fn two_instances_handle_what_is_stored_once_and_in_order(db: &TempDatabase) {
        let world = World::open(db).await;
        let (log, heals): (Log, _) = (Arc::default(), Arc::default());
        let (queue, first) = fragile(&world.outbox, &log, &heals).await;
        let messages: Vec<_> = (1..=5).flat_map(|n| (0..10).map(move |key| message(&format!("k{key}"), n))).collect();
        for message in messages {
            assert_eq!(queue.deliver(Ok(message)).await, AckDecision::Ack);
        }
        assert_eq!(world.count("outbox_deferred").await, 50);
        let (_queue, second) = fragile(&world.outbox, &log, &heals).await;
        log.lock().unwrap().clear();
        heals.store(true, Ordering::SeqCst);
        wait_until(SOON, "nothing is stored", async || tests::equals(world.count("outbox_deferred").await, 0)).await;
        let handled = first.stats().borrow().handled + second.stats().borrow().handled;
        first.shutdown(SOON).await.unwrap();
        second.shutdown(SOON).await.unwrap();
        let log = log.lock().unwrap().clone();
        for key in (0..10).map(|key| format!("k{key}")) {
            let mut order: Vec<u64> = log.iter().filter(|(of, _)| *of == key).map(|(_, n)| *n).collect();
            // The head may have been running when `heals` was set.
            order.dedup();
            assert_eq!(order, [1, 2, 3, 4, 5], "{key}");
        }
        assert!(log.len() < 60, "none is handled twice: {} runs", log.len());
        assert_eq!((handled, world.count("story_effects").await), (50, 50));
    }
}
