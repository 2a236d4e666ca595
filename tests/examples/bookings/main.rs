//! A process to be killed that runs the bookings: their services, a relay, a consumer and sagas.
#![expect(clippy::print_stdout, reason = "its lines are what the test waits for")]
#![expect(
    clippy::unwrap_used,
    reason = "a tool of tests: what goes wrong ends it, and the test shows it"
)]

mod services;
#[path = "../victim/stop.rs"]
mod stop;

use outbox_sea_orm::prelude::*;
use sea_orm::{ConnectOptions, Database};
use services::{BookingError, Confirmation, Services};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

const LEASE: Duration = Duration::from_millis(1_500);
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// A database, how many bookings are placed at the start, and where the process stops.
type BookingConfig = (String, u32, Option<(String, u64)>);

#[tokio::main(worker_threads = 2)]
async fn main() {
    let (url, places, stops_at): BookingConfig =
        serde_json::from_str(&std::env::args().nth(1).unwrap()).unwrap();
    if let Some((point, nth)) = &stops_at {
        stop::at(point, *nth);
    }
    let mut asked_to_end = signal(SignalKind::terminate()).unwrap();
    let mut options = ConnectOptions::new(&url);
    options.sqlx_logging(false);
    let outbox = Outbox::builder(Database::connect(options).await.unwrap())
        .source("story")
        .build()
        .await
        .unwrap();
    let mut services = Services::of(&outbox);
    let invoices = services.invoices.take().unwrap();
    let services = services.publish();
    let (publisher, subscriber) = Memory::channel();
    let relay = Relay::builder(&outbox)
        .lease(LEASE)
        .route("here", everything(), publisher)
        .start()
        .await
        .unwrap();
    let consumer = Consumer::builder("invoices", &outbox)
        .handlers(invoices)
        .lease(LEASE)
        .subscribe(subscriber);
    let consumer = consumer.start().await.unwrap();
    let sagas = Sagas::builder(&outbox)
        .register(Confirmation::saga())
        .lease(LEASE)
        .poll(Duration::from_millis(100));
    let sagas = sagas.start().await.unwrap();
    println!("up");
    for n in 0..places {
        // Every third customer may book nothing.
        match services.bookings.place(if n % 3 == 2 { "mallory" } else { "ada" }).await {
            Ok(_) | Err(BookingError::Blocked(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    println!("placed");
    asked_to_end.recv().await;
    relay.shutdown(ENDS_WITHIN).await.unwrap();
    consumer.shutdown(ENDS_WITHIN).await.unwrap();
    sagas.shutdown(ENDS_WITHIN).await.unwrap();
}
