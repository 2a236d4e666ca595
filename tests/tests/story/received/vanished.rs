//! A process or its network hangs inside a handler's transaction.

use crate::support::{
    AckDecision, Cx, Queue, SOON, Sample, VictimConfig, VictimRoute, World, effect, message,
    on_servers, victim,
};
use futures_util::future::join_all;
use outbox_core::event::MessageParts;
use outbox_sea_orm::{
    Outbox, TransactionLimits,
    consumer::{Consumer, EventHandler, HandlerError},
    event::Message,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tests::{Proxy, databases::TempDatabase, wait_until};
use tokio::{sync::Semaphore, time::timeout};

/// The limit of a statement's wait for a lock, and half of a transaction's idle limit.
const LIMIT: Duration = Duration::from_secs(1);
/// Keys of the test; those that the vanishing instance handles.
const KEYS: u64 = 40;
const HELD: u64 = 2;

/// Has its effect, and then waits for the test.
#[derive(Clone)]
struct Gated {
    begun: Arc<Semaphore>,
    gate: Arc<Semaphore>,
    attempts: Arc<Mutex<Vec<u32>>>,
}

impl Gated {
    fn new(open: bool) -> Self {
        let gate = Arc::new(Semaphore::new(if open { Semaphore::MAX_PERMITS } else { 0 }));
        Self { begun: Arc::new(Semaphore::new(0)), gate, attempts: Arc::default() }
    }
}

impl EventHandler<Sample, Outbox> for Gated {
    async fn handle(&self, sample: Sample, cx: &Cx) -> Result<(), HandlerError> {
        self.attempts.lock().unwrap().push(cx.attempt());
        effect(sample, cx).await?;
        self.begun.add_permits(1);
        let _open = self.gate.acquire().await?;
        Ok(())
    }
}

async fn outbox_at(database: &TempDatabase, url: &str) -> Outbox {
    let mut options = sea_orm::ConnectOptions::new(url);
    options.sqlx_logging(false).max_connections(10).acquire_timeout(2 * LIMIT);
    let db = sea_orm::Database::connect(options)
        .await
        .unwrap_or_else(|e| panic!("{}: {e}", database.name()));
    let limits = TransactionLimits::new().idle(2 * LIMIT).lock_wait(LIMIT);
    Outbox::builder(db).source("story").transaction_limits(limits).build().await.unwrap()
}

async fn consumer(outbox: &Outbox, handler: Gated) -> (Queue, Consumer) {
    let (queue, subscriber) = Queue::open();
    let consumer = Consumer::builder("story", outbox).on("effect", handler).subscribe(subscriber);
    (queue, consumer.start().await.unwrap())
}

/// Delivers until it is acknowledged.
async fn taken(queue: &Queue, message: &Message) {
    while queue.deliver(Ok(message.clone())).await != AckDecision::Ack {}
}

on_servers! {
    async fn two_keys_of_a_consumer_whose_network_vanishes_go_on_at_the_other_one_and_have_one_effect(db: &TempDatabase) {
        let world = World::open(db).await;
        let proxy = Proxy::before(db.url()).await;
        let (far, near) = (outbox_at(db, &proxy.url(db.url())).await, outbox_at(db, db.url()).await);
        let (vanishing, other) = (Gated::new(false), Gated::new(true));
        let (far_queue, far_handle) = consumer(&far, vanishing.clone()).await;
        let (near_queue, near_handle) = consumer(&near, other.clone()).await;
        let messages: Vec<Message> = (0..KEYS).map(|key| message(&format!("k{key}"), 1)).collect();
        let held: Vec<_> = messages[..2].iter().map(|message| far_queue.deliver(Ok(message.clone()))).collect();
        let both = u32::try_from(HELD).unwrap();
        vanishing.begun.acquire_many(both).await.unwrap().forget();

        proxy.vanish();
        let all = join_all(messages.iter().map(|message| taken(&near_queue, message)));
        timeout(SOON, all).await.expect("the other one goes on with all keys, those two included");
        let stats = *near_handle.stats().borrow();
        assert!(stats.disturbed > 0 && !stats.store_down, "it had to wait for two keys: {stats:?}");

        // The first instance's deliveries end, and then it works as before.
        vanishing.gate.add_permits(Semaphore::MAX_PERMITS);
        wait_until(SOON, "an answer is overdue", async || far_handle.stats().borrow().disturbed > 0).await;
        proxy.come_back();
        timeout(SOON, join_all(held)).await.expect("both deliveries are answered");
        let later: Vec<Message> = (0..KEYS).map(|key| message(&format!("k{key}"), 2)).collect();
        let all = join_all(later.iter().map(|message| taken(&far_queue, message)));
        timeout(SOON, all).await.expect("the first one recovers");

        for handle in [far_handle, near_handle] {
            handle.shutdown(SOON).await.unwrap();
        }
        let effects = world.number("SELECT COUNT(DISTINCT sample) FROM story_effects").await;
        assert_eq!((effects, world.count("story_effects").await), (80, 80), "each has its effect once");
        assert_eq!((world.count("outbox_dead_letters").await, world.count("outbox_deferred").await), (0, 0));
        for handler in [vanishing, other] {
            assert!(handler.attempts.lock().unwrap().iter().all(|attempt| *attempt == 1), "no attempt was counted");
        }
    }

    async fn a_process_that_stands_still_inside_a_handler_frees_its_key_and_one_that_waits_keeps_it(db: &TempDatabase) {
        let world = World::open(db).await;
        let tx = world.outbox.begin().await.unwrap();
        let id = tx.emit(Sample::new("k", 1)).unwrap();
        tx.commit().await.unwrap();
        let config = VictimConfig {
            url: db.url().to_owned(),
            name: "victim".into(),
            lease_ms: 10_000,
            shutdown_ms: 1_000,
            routes: vec![VictimRoute::inside("a")],
            handler: "holding".into(),
            idle_ms: 1_000,
            ..VictimConfig::default()
        };
        let mut process = victim(&config).await;
        process.wait_for_line(SOON, "holds").await;
        let near = outbox_at(db, db.url()).await;
        let (queue, handle) = consumer(&near, Gated::new(true)).await;
        // Until it has seen the other's heartbeat, it would store the message instead of queueing
        // it.
        timeout(SOON, handle.stats().wait_for(|stats| !stats.isolating)).await.expect("the other one lives").unwrap();
        let parts = MessageParts { id, source: "story".into(), ..message("k", 1).into_parts() };
        let message = Message::new(parts);
        let takes = taken(&queue, &message);
        tokio::pin!(takes);
        assert!(timeout(3 * LIMIT, &mut takes).await.is_err(), "a handler that waits keeps its transaction");
        process.pause();
        timeout(SOON, takes).await.expect("the lock of one that stands still is freed");
        assert_eq!(world.count("story_effects").await, 1);
        process.kill().await;
        handle.shutdown(SOON).await.unwrap();
        assert_eq!((world.count("story_effects").await, world.count("outbox_dead_letters").await), (1, 0));
    }
}
