//! Duplicate messages of a broker, and another consumer that fails over them.

use crate::support::{Broker, Cx, SOON, Sample, World, consumer, effect, message};
use outbox_sea_orm::{consumer::Consumer, failure::RetryPolicy};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tests::{databases::TempDatabase, on_every_database, wait_until};

on_every_database! {
    async fn the_same_message_published_a_hundred_times_has_one_effect(db: &TempDatabase) {
        const TIMES: u64 = 100;
        let (world, broker) = (World::open(db).await, Broker::new());
        let mut instances = Vec::new();
        for _ in 0..2 {
            let instance = consumer(&world.outbox, "effect").subscribe(broker.subscriber()).start().await.unwrap();
            instances.push(instance);
        }
        // Until an instance has seen the other's heartbeat, it stores deliveries before it runs
        // them.
        let is_well = async || instances.iter().all(|instance| !instance.stats().borrow().isolating);
        wait_until(SOON, "both are known to live", is_well).await;
        broker.publish(&vec![message("k0", 1); usize::try_from(TIMES).unwrap()]).await;
        let acked = async || instances.iter().map(|i| i.stats().borrow().acked).sum::<u64>() >= TIMES;
        wait_until(SOON, "all are acknowledged", acked).await;
        let (mut handled, mut duplicates) = (0, 0);
        for instance in instances {
            let stats = *instance.stats().borrow();
            instance.shutdown(SOON).await.unwrap();
            (handled, duplicates) = (handled + stats.handled, duplicates + stats.duplicates);
        }
        assert_eq!((handled, duplicates), (1, TIMES - 1));
        assert_eq!((world.count("story_effects").await, world.count("outbox_inbox").await), (1, 1));
        broker.is_empty().await;
    }

    async fn of_two_handlers_of_a_type_the_one_that_fails_does_not_repeat_the_other(db: &TempDatabase) {
        const ATTEMPTS: u32 = 3;
        let (world, broker) = (World::open(db).await, Broker::new());
        let runs = Arc::new(AtomicUsize::new(0));
        let failing = {
            let runs = runs.clone();
            move |_: Sample, _: &Cx| {
                runs.fetch_add(1, Ordering::SeqCst);
                std::future::ready(Err::<(), _>("down"))
            }
        };
        let consumer = Consumer::builder("story", &world.outbox).on("failing", failing).on("effect", effect);
        let retry = RetryPolicy::attempts(ATTEMPTS, Duration::from_millis(50));
        let handle = consumer.retry(retry).subscribe(broker.subscriber()).start().await.unwrap();
        broker.publish(&[message("k0", 1)]).await;
        wait_until(SOON, "it is acknowledged", async || tests::equals(handle.stats().borrow().acked, 1)).await;
        handle.shutdown(SOON).await.unwrap();
        let letters = world.letters().await;
        let found: Vec<_> = letters.iter().map(|l| (l.route.as_str(), l.reason.as_str(), l.attempts)).collect();
        assert_eq!(found, [("story/failing", "exhausted", i64::from(ATTEMPTS))]);
        assert_eq!(runs.load(Ordering::SeqCst), ATTEMPTS as usize);
        assert_eq!((world.count("story_effects").await, world.count("outbox_inbox").await), (1, 2));
        broker.is_empty().await;
    }
}
