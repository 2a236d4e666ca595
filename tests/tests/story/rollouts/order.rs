//! The order of each key, whichever release takes its events: instances of two, one after the other and side by side, behind a
//! sender that takes whichever answers.

use crate::stage::{Cx, LATE, SOON, Told, World};
use async_trait::async_trait;
use outbox_sea_orm::{
    consumer::{Consumer, ConsumerHandle, HandlerError, HandlerOptions},
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
/// Events of each key that are told after each act.
const EACH: u64 = 6;

/// What the next release tells.
#[derive(Debug, Serialize, Deserialize, outbox_sea_orm::OutboxEvent)]
#[outbox(type = "story.told", version = 2, topic = "story", upcast(1 = calmly))]
struct NextTold {
    #[outbox(key)]
    key: String,
    n: u64,
    mood: String,
}

fn calmly(old: Told) -> Result<NextTold, Infallible> {
    Ok(NextTold { key: old.key, n: old.n, mood: "calm".to_owned() })
}

/// Notes an event, which has to be the next of its key. Some succeed at their second attempt.
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

async fn told(event: Told, cx: &Cx) -> Result<(), HandlerError> {
    note(&event.key, event.n, cx).await
}

async fn next_told(event: NextTold, cx: &Cx) -> Result<(), HandlerError> {
    note(&event.key, event.n, cx).await
}

/// Sends each message to one of the instances that are there.
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
    running: Vec<ConsumerHandle>,
    told: u64,
}

impl Instances<'_> {
    async fn start(&mut self, next: bool) {
        let (memory, subscriber) = Memory::channel();
        let consumer = Consumer::new("story", &self.world.outbox).subscribe(subscriber);
        let consumer = match next {
            false => consumer.on("told", told),
            true => {
                consumer.on_with("told-next", HandlerOptions::new().renamed_from("told"), next_told)
            }
        };
        let again = RetryPolicy::attempts(9, Duration::from_millis(100)).factor(1.0);
        let consumer = consumer.retry(again).hold(Duration::ZERO).lease(Duration::from_secs(1));
        self.running.push(consumer.start().await.unwrap());
        self.whoever.change(|there| there.push(memory));
        self.tell().await;
    }

    async fn stop_oldest(&mut self) {
        self.whoever.change(|there| drop(there.remove(0)));
        self.running.remove(0).shutdown(SOON).await.unwrap();
        self.tell().await;
    }

    /// Tells some more of each key, in either version, and waits until all of it is taken.
    async fn tell(&mut self) {
        let tx = self.world.outbox.begin().await.unwrap();
        for n in self.told + 1..=self.told + EACH {
            for k in 0..KEYS {
                let key = format!("k{k}");
                if (n + k) % 3 == 0 {
                    tx.emit(NextTold { key, n, mood: "glad".to_owned() }).unwrap();
                } else {
                    tx.emit(Told::new(key, n)).unwrap();
                }
            }
        }
        self.told += EACH;
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
        let mut instances = Instances { world: &world, whoever, running: Vec::new(), told: 0 };
        // This one alone, both, the next one alone, and back; and once more.
        for next in [false, true, false, true] {
            instances.start(next).await;
            if instances.running.len() > 1 {
                instances.stop_oldest().await;
            }
        }
        let all = i64::try_from(instances.told).unwrap();
        let behind = format!("SELECT COUNT(*) FROM story_progress WHERE n < {all}");
        wait_until(LATE, "all of each key was told", async || tests::equals(world.number(&behind).await, 0)).await;
        for instance in instances.running {
            instance.shutdown(SOON).await.unwrap();
        }
        relay.shutdown(SOON).await.unwrap();
        let overtaken = world.rows("SELECT fact FROM story_facts ORDER BY fact").await;
        let overtaken: Vec<String> = overtaken.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
        assert!(overtaken.is_empty(), "{overtaken:?}");
        let letters = world.letters().await;
        assert!(letters.is_empty(), "{letters:?}");
        assert_eq!(world.count("outbox_deliveries").await, 0);
    }
}
