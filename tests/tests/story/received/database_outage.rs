//! The consumer's database server stops and comes back.

use crate::support::{AckDecision, Cx, LATE, Queue, SOON, Sample, World, effect, message};
use futures_util::future::join_all;
use outbox_sea_orm::{
    Outbox,
    consumer::{Consumer, EventHandler, HandlerError},
};
use sea_orm::ConnectOptions;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tests::servers::{self, Server};
use tokio::time::sleep;

/// How long the database server is stopped.
const OUTAGE: Duration = Duration::from_secs(10);
/// The pause of a broker before it redelivers.
const REDELIVERY_PAUSE: Duration = Duration::from_millis(200);

/// Records its attempts, and runs so long that the database stops in the middle.
struct Noting(Arc<Mutex<Vec<u32>>>);

impl EventHandler<Sample, Outbox> for Noting {
    async fn handle(&self, sample: Sample, cx: &Cx) -> Result<(), HandlerError> {
        self.0.lock().unwrap().push(cx.attempt());
        sleep(Duration::from_millis(20)).await;
        Ok(effect(sample, cx).await?)
    }
}

async fn comes_back(server: &mut Server) {
    let mut options = ConnectOptions::new(server.url());
    options.sqlx_logging(false).max_connections(20).acquire_timeout(Duration::from_secs(2));
    let world = World::on(sea_orm::Database::connect(options).await.unwrap()).await;
    let attempts: Arc<Mutex<Vec<u32>>> = Arc::default();
    let (queue, subscriber) = Queue::open();
    let consumer = Consumer::builder("story", &world.outbox)
        .on("effect", Noting(attempts.clone()))
        .subscribe(subscriber);
    let handle = consumer.concurrency(8).start().await.unwrap();
    let done = AtomicUsize::new(0);
    let deliver = async |key: u64| {
        for n in 1..=20 {
            let message = message(&format!("k{key}"), n);
            while queue.deliver(Ok(message.clone())).await != AckDecision::Ack {
                sleep(REDELIVERY_PAUSE).await;
            }
            done.fetch_add(1, Ordering::SeqCst);
        }
    };
    let all = join_all((0..20).map(deliver));
    let stops = async {
        tests::wait_until(SOON, "it works", async || {
            tests::above(done.load(Ordering::SeqCst), 100)
        })
        .await;
        server.stop().await;
        tests::wait_until(SOON, "the consumer notices", async || {
            handle.stats().borrow().store_down
        })
        .await;
        sleep(OUTAGE).await;
        server.start().await;
    };
    tests::in_time(LATE, "it goes on by itself", async { tokio::join!(all, stops) }).await;
    let stats = *handle.stats().borrow();
    handle.shutdown(SOON).await.unwrap();
    let effects = world.number("SELECT COUNT(DISTINCT sample) FROM story_effects").await;
    assert_eq!((effects, world.count("story_effects").await), (400, 400));
    assert_eq!(
        (world.count("outbox_dead_letters").await, world.count("outbox_deferred").await),
        (0, 0)
    );
    assert!(attempts.lock().unwrap().iter().all(|attempt| *attempt == 1), "no attempt was burned");
    assert_eq!(
        (stats.retried, stats.dead_lettered, stats.stored, stats.store_down),
        (0, 0, 0, false)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_stops_under_a_consumer_and_comes_back_costs_no_attempt() {
    comes_back(&mut servers::postgres::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mariadb_that_stops_under_a_consumer_and_comes_back_costs_no_attempt() {
    comes_back(&mut servers::mariadb::start().await).await;
}
