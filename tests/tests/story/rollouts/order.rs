//! The order of each key over two releases: instances of both, one after the other and side by
//! side, behind a sender that uses any instance that answers.

use crate::support::{Cx, LATE, SOON, Sample, World};
use async_trait::async_trait;
use outbox_sea_orm::{
    consumer::{Consumer, HandlerError, HandlerOptions},
    event::Message,
    failure::RetryPolicy,
    relay::Relay,
    transport::{Memory, PublishError, Publisher, Receipt, Route, everything},
};
use sea_orm::ConnectionTrait;
use serde::{Deserialize, Serialize};
use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tests::{databases::TempDatabase, on_every_database, wait_until};

const KEYS: u64 = 6;
/// Events of each key that are emitted after each act.
const EACH: u64 = 6;

/// The event of the next release.
#[derive(Debug, Serialize, Deserialize, outbox_sea_orm::OutboxEvent)]
#[outbox(type = "story.sample", version = 2, topic = "story", upcast(1 = calmly))]
struct NextSample {
    #[outbox(key)]
    key: String,
    n: u64,
    mood: String,
}

fn calmly(old: Sample) -> Result<NextSample, Infallible> {
    Ok(NextSample { key: old.key, n: old.n, mood: "calm".to_owned() })
}

/// Records an event, which has to be the next of its key. Some succeed at their second attempt.
async fn note(key: &str, n: u64, cx: &Cx) -> Result<(), HandlerError> {
    let next =
        format!("UPDATE story_progress SET n = {n} WHERE of_key = '{key}' AND n = {}", n - 1);
    if cx.tx.execute_unprepared(&next).await?.rows_affected() != 1 {
        cx.tx
            .execute_unprepared(&format!("INSERT INTO story_facts (fact) VALUES ('{key} {n}')"))
            .await?;
    }
    if n % 5 == 2 && cx.attempt() == 1 { Err("not yet".into()) } else { Ok(()) }
}

async fn receive(event: Sample, cx: &Cx) -> Result<(), HandlerError> {
    note(&event.key, event.n, cx).await
}

async fn receive_next(event: NextSample, cx: &Cx) -> Result<(), HandlerError> {
    note(&event.key, event.n, cx).await
}

/// Sends each message to one of the running instances.
#[derive(Clone, Default)]
struct Whoever(Arc<Mutex<Vec<Memory>>>, Arc<AtomicUsize>);

impl Whoever {
    fn change(&self, change: impl FnOnce(&mut Vec<Memory>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[async_trait]
impl Publisher for Whoever {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let n = self.1.fetch_add(1, Ordering::Relaxed);
        let mut chosen = None;
        self.change(|there| chosen = n.checked_rem(there.len()).map(|at| there[at].clone()));
        chosen
            .ok_or_else(|| PublishError::unavailable("no instance is there"))?
            .publish(message)
            .await
    }
}

/// The instances that run, the oldest first.
struct Instances<'w> {
    world: &'w World,
    whoever: Whoever,
    running: Vec<Consumer>,
    emitted: u64,
}

impl Instances<'_> {
    async fn start(&mut self, next: bool) {
        let (memory, subscriber) = Memory::channel();
        let consumer = Consumer::builder("story", &self.world.outbox).subscribe(subscriber);
        let consumer = match next {
            false => consumer.on("receive", receive),
            true => consumer.on_with(
                "receive-next",
                HandlerOptions::new().renamed_from("receive"),
                receive_next,
            ),
        };
        let again = RetryPolicy::attempts(9, Duration::from_millis(100)).factor(1.0);
        let consumer =
            consumer.retry(again).max_unacked_time(Duration::ZERO).lease(Duration::from_secs(1));
        self.running.push(consumer.start().await.unwrap());
        self.whoever.change(|there| there.push(memory));
        self.emit().await;
    }

    async fn stop_oldest(&mut self) {
        self.whoever.change(|there| drop(there.remove(0)));
        self.running.remove(0).shutdown(SOON).await.unwrap();
        self.emit().await;
    }

    /// Emits more events of each key, in either version, and waits until all are received.
    async fn emit(&mut self) {
        let tx = self.world.outbox.begin().await.unwrap();
        for n in self.emitted + 1..=self.emitted + EACH {
            for k in 0..KEYS {
                let key = format!("k{k}");
                if (n + k) % 3 == 0 {
                    tx.emit(NextSample { key, n, mood: "glad".to_owned() }).unwrap();
                } else {
                    tx.emit(Sample::new(key, n)).unwrap();
                }
            }
        }
        self.emitted += EACH;
        tx.commit().await.unwrap();
        self.world.drained(LATE).await;
    }
}

on_every_database! {
    async fn each_key_keeps_its_order_whichever_release_takes_its_events_and_nothing_is_buried(db: &TempDatabase) {
        let world = World::open(db).await;
        world.db.execute_unprepared("CREATE TABLE story_progress (of_key VARCHAR(8) NOT NULL PRIMARY KEY, n BIGINT NOT NULL)").await.unwrap();
        for k in 0..KEYS {
            world.db.execute_unprepared(&format!("INSERT INTO story_progress (of_key, n) VALUES ('k{k}', 0)")).await.unwrap();
        }
        let whoever = Whoever::default();
        let policy = RetryPolicy::default().backoff(Duration::from_millis(20)).max_backoff(Duration::from_millis(100));
        let route = Route::new("story", everything(), whoever.clone()).retry(policy);
        let relay = Relay::builder(&world.outbox).poll(Duration::from_millis(200)).add_route(route).start().await.unwrap();
        let mut instances = Instances { world: &world, whoever, running: Vec::new(), emitted: 0 };
        // This release alone, both, the next one alone, and back; and once more.
        for next in [false, true, false, true] {
            instances.start(next).await;
            if instances.running.len() > 1 {
                instances.stop_oldest().await;
            }
        }
        let all = i64::try_from(instances.emitted).unwrap();
        let behind = format!("SELECT COUNT(*) FROM story_progress WHERE n < {all}");
        wait_until(LATE, "all of each key was received", async || tests::equals(world.number(&behind).await, 0)).await;
        for instance in instances.running {
            instance.shutdown(SOON).await.unwrap();
        }
        relay.shutdown(SOON).await.unwrap();
        let overtaken = world.rows("SELECT fact FROM story_facts ORDER BY fact").await;
        let overtaken: Vec<String> = overtaken.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
        assert!(overtaken.is_empty(), "{overtaken:?}");
        let letters = world.letters().await;
        assert!(letters.is_empty(), "{letters:?}");
        assert_eq!(world.count("outbox_deferred").await, 0);
    }
}
