//! What a victim runs: a producer, a relay, a consumer, or a lock on the whole SQLite file.

#[cfg(feature = "kafka")]
use crate::kafka::member;
use crate::{
    config::{VictimConfig, VictimRoute},
    event::Sample,
    handlers,
    link::Link,
    mqtt::session,
};
use async_trait::async_trait;
use outbox_amqp::AmqpSubscriber;
use outbox_core::{
    outbox::RelayStore, relay::RelaySource, runtime::Wake, transport::MemorySubscriber,
};
use outbox_http::{HttpReceiver, HttpSubscriber};
use outbox_sea_orm::{
    Outbox, StoreError, StoreOptions, TransactionLimits,
    consumer::Consumer,
    failure::RetryPolicy,
    open_relay_store,
    relay::Relay,
    transport::{Limits, Memory, Route, Subscriber, everything},
};
use sea_orm::{ConnectOptions, ConnectionTrait, Database};
use std::{net::SocketAddr, process::ExitCode, sync::Mutex, time::Duration};
use tests::servers::rabbitmq;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// How long a consumer gets to end.
const CONSUMER_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// An outbox as the source of a relay.
struct Source(Outbox);

#[async_trait]
impl RelaySource for Source {
    async fn open_relay_store(&self, lease: Duration) -> Result<RelayStore, StoreError> {
        open_relay_store(self.0.connection(), self.0.schema(), &StoreOptions::new(lease)).await
    }

    fn wake_handle(&self) -> Wake {
        self.0.wake_handle()
    }
}

/// Runs until SIGTERM; the code says whether everything ended well.
pub(crate) async fn run(config: VictimConfig) -> ExitCode {
    let mut asked_to_end = signal(SignalKind::terminate()).unwrap();
    let mut options = ConnectOptions::new(&config.url);
    options.sqlx_logging(false);
    let db = Database::connect(options).await.unwrap();
    if config.locks_the_file {
        db.execute_unprepared("BEGIN EXCLUSIVE").await.unwrap();
        println!("up");
        asked_to_end.recv().await;
        return ExitCode::SUCCESS;
    }
    let mut limits = TransactionLimits::new();
    if config.idle_ms > 0 {
        limits = limits.idle(Duration::from_millis(config.idle_ms));
    }
    let outbox =
        Outbox::builder(db).source("story").transaction_limits(limits).build().await.unwrap();
    let (relay, consumer) = match (&config.queue, &config.kafka, &config.mqtt, config.http) {
        (Some(queue), _, _, _) => {
            let subscriber = AmqpSubscriber::new(rabbitmq::shared_url(), queue).unwrap();
            (None, Some(receive(&config, &outbox, subscriber).await))
        }
        #[cfg(not(feature = "kafka"))]
        (None, Some(_), _, _) => panic!("built without the feature `kafka`"),
        #[cfg(feature = "kafka")]
        (None, Some((url, topic)), _, _) => {
            (None, Some(receive(&config, &outbox, member(url, topic)).await))
        }
        (None, None, Some((url, topic)), _) => {
            (None, Some(receive(&config, &outbox, session(url, topic)).await))
        }
        (None, None, None, Some(address)) => {
            (None, Some(receive(&config, &outbox, serve(address).await).await))
        }
        (None, None, None, None) if config.routes.is_empty() => (None, None),
        (None, None, None, None) => relay(&config, &outbox).await,
    };
    println!("up");
    for n in 1..=config.produces {
        produce(&outbox, &config.name, n).await.unwrap();
        println!("committed {n}");
    }
    println!("done");
    if relay.is_none() && consumer.is_none() {
        return ExitCode::SUCCESS;
    }
    if let Some(relay) = &relay {
        print_changes(relay);
    }
    asked_to_end.recv().await;
    let ended = match relay {
        Some(relay) => relay.shutdown(Duration::from_millis(config.shutdown_ms)).await,
        None => Ok(()),
    };
    println!("ended {ended:?}");
    if let Some(consumer) = consumer {
        println!("consumer ended {:?}", consumer.shutdown(CONSUMER_ENDS_WITHIN).await);
    }
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Commits one transaction: a row of `story_facts` and its event.
async fn produce(outbox: &Outbox, key: &str, n: u64) -> Result<(), outbox_sea_orm::OutboxError> {
    let tx = outbox.begin().await?;
    tx.execute_unprepared(&format!("INSERT INTO story_facts (fact) VALUES ('{key} {n}')")).await?;
    tx.emit(Sample::new(key, n))?;
    tx.commit().await
}

/// Starts a consumer of a broker.
async fn receive(config: &VictimConfig, outbox: &Outbox, subscriber: impl Subscriber) -> Consumer {
    handlers::consumer(outbox, &config.handler).subscribe(subscriber).start().await.unwrap()
}

/// Serves a receiver, until the process ends.
async fn serve(address: SocketAddr) -> HttpSubscriber {
    let (router, subscriber) = HttpReceiver::builder().unsigned().build().unwrap();
    // After a crash of this process the port may belong to another process for a moment.
    let mut bound = None;
    tests::wait_until(Duration::from_secs(20), "the port is free", async || {
        bound = TcpListener::bind(address).await.ok();
        bound.is_some()
    })
    .await;
    let listener = bound.expect("it was waited for");
    tokio::spawn(async move { axum::serve(listener, router).await });
    subscriber
}

/// Starts the relay, and the consumer where a route leads to it.
async fn relay(config: &VictimConfig, outbox: &Outbox) -> (Option<Relay>, Option<Consumer>) {
    let source = Source(outbox.clone());
    let lease = Duration::from_millis(config.lease_ms);
    let mut builder = Relay::builder(&source).lease(lease).poll(Duration::from_millis(200));
    let mut consumer = None;
    for route in &config.routes {
        let (made, inside) = self::route(config, route);
        builder = builder.add_route(made);
        if let Some(subscriber) = inside {
            let consuming = handlers::consumer(outbox, &config.handler).subscribe(subscriber);
            consumer = Some(consuming.start().await.unwrap());
        }
    }
    (Some(builder.start().await.unwrap()), consumer)
}

fn route(config: &VictimConfig, route: &VictimRoute) -> (Route, Option<MemorySubscriber>) {
    let limits = Limits::default().max_batch(route.max_batch).max_in_flight(route.max_in_flight);
    let (made, inside) = match route.to {
        Some(to) => {
            let (from, route) = (config.name.clone(), route.name.clone());
            let link = Link { to, from, route: route.clone(), limits, idle: Mutex::default() };
            (Route::new(route, everything(), link), None)
        }
        None => {
            let (publisher, subscriber) = Memory::channel();
            (
                Route::new(route.name.clone(), everything(), publisher).limits(limits),
                Some(subscriber),
            )
        }
    };
    let made = made.retry(RetryPolicy::default().backoff(Duration::from_millis(route.backoff_ms)));
    let made = if route.parks { made.park_when_dead() } else { made };
    (if route.at_most_once { made.at_most_once() } else { made }, inside)
}

/// Prints how many partitions are owned and lost, whenever that changes.
fn print_changes(relay: &Relay) {
    let mut stats = relay.stats();
    tokio::spawn(async move {
        let mut printed = None;
        while stats.changed().await.is_ok() {
            let now = *stats.borrow_and_update();
            let facts = (now.partitions, now.leases_lost);
            if printed.replace(facts) != Some(facts) {
                println!("partitions {} lost {}", now.partitions, now.leases_lost);
            }
        }
    });
}
