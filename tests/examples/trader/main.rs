//! A process to be killed: one side of the trips, with its relay, its consumer, and its sagas where
//! it runs them.
#![expect(clippy::print_stdout, reason = "its lines are what the test waits for")]
#![expect(
    clippy::unwrap_used,
    reason = "a tool of tests: what goes wrong ends it, and the test shows it"
)]

mod others;
#[path = "../../tests/story/trips/trip.rs"]
mod trip;
mod wire;

use others::{on_book, on_cancel};
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, Queue, Topology};
use outbox_sea_orm::{
    prelude::*,
    transport::{Route, everything},
};
use sea_orm::{ConnectOptions, Database};
use std::{process::ExitCode, time::Duration};
use tests::servers::rabbitmq;
use tokio::signal::unix::{SignalKind, signal};
use trip::{REPLIES, Role, Trip};
use wire::Disturbed;

/// How long a shutdown may take after SIGTERM.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let role: Role = serde_json::from_str(&std::env::args().nth(1).unwrap()).unwrap();
    fastrand::seed(role.seed);
    // The test expects the panics of the handlers: no message for them.
    std::panic::set_hook(Box::new(|_| ()));
    let mut asked_to_end = signal(SignalKind::terminate()).unwrap();
    let mut options = ConnectOptions::new(&role.url);
    options.sqlx_logging(false);
    let source = if role.drives_sagas { "/orders" } else { "/participants" };
    let outbox = Outbox::builder(Database::connect(options).await.unwrap())
        .source(source)
        .build()
        .await
        .unwrap();
    let lease = Duration::from_millis(role.lease_ms);
    let topology =
        |queue: &str| Topology::new().queue(Queue::quorum(queue).expires(Duration::from_mins(10)));

    let publisher = AmqpPublisher::new(rabbitmq::shared_url()).unwrap().queue(&role.sends);
    let publisher = publisher.declare(topology(&role.sends)).build().unwrap();
    let retry = RetryPolicy::default()
        .backoff(Duration::from_millis(20))
        .max_backoff(Duration::from_millis(200));
    let route = Route::new("wire", everything(), Disturbed::new(publisher, role.seed)).retry(retry);
    let relay = Relay::builder(&outbox)
        .lease(lease)
        .poll(Duration::from_millis(200))
        .add_route(route)
        .start()
        .await
        .unwrap();

    let subscriber = AmqpSubscriber::new(rabbitmq::shared_url(), &role.receives).unwrap();
    let subscriber = subscriber.declare(topology(&role.receives)).build().unwrap();
    let consumer = Consumer::builder("trips", &outbox).subscribe(subscriber).lease(lease);
    let consumer = consumer.retry(
        RetryPolicy::attempts(60, Duration::from_millis(5)).max_backoff(Duration::from_millis(50)),
    );
    let sagas = if role.drives_sagas {
        let sagas = Sagas::builder(&outbox).register(Trip::saga()).reply_to(REPLIES).lease(lease);
        Some(sagas.poll(Duration::from_millis(100)).start().await.unwrap())
    } else {
        None
    };
    let consumer = match &sagas {
        Some(sagas) => consumer.replies(sagas),
        None => consumer
            .on_command("book", on_book)
            .on_command("cancel", on_cancel)
            .commands_from("/orders", REPLIES),
    };
    let consumer = consumer.start().await.unwrap();
    println!("up");
    asked_to_end.recv().await;
    let mut well = relay.shutdown(ENDS_WITHIN).await.is_ok();
    well &= consumer.shutdown(ENDS_WITHIN).await.is_ok();
    if let Some(sagas) = sagas {
        well &= sagas.shutdown(ENDS_WITHIN).await.is_ok();
    }
    println!("ended well: {well}");
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
