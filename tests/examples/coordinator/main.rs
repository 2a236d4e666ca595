//! A process to be killed that runs the sagas of a database.
#![expect(clippy::print_stdout, reason = "its lines are what the test waits for")]
#![expect(
    clippy::unwrap_used,
    reason = "a tool of tests: what goes wrong ends it, and the test shows it"
)]

#[path = "../../tests/story/support/event.rs"]
mod event;
#[path = "../../tests/story/sagas/orders.rs"]
mod orders;
#[path = "../victim/stop.rs"]
mod stop;

use orders::{Coordinating, place_order};
use outbox_sea_orm::{prelude::*, runtime::run_until_signal};
use sea_orm::{ConnectOptions, Database};
use std::{process::ExitCode, time::Duration};

/// How long a shutdown may take after SIGTERM.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let config: Coordinating = serde_json::from_str(&std::env::args().nth(1).unwrap()).unwrap();
    if let Some((point, nth)) = &config.stops_at {
        stop::at(point, *nth);
    }
    // The test expects the panics of the saga: no message for them.
    std::panic::set_hook(Box::new(|_| ()));
    let mut options = ConnectOptions::new(&config.url);
    options.sqlx_logging(false);
    let outbox = Outbox::builder(Database::connect(options).await.unwrap())
        .source("story")
        .build()
        .await
        .unwrap();
    let lease = Duration::from_millis(config.lease_ms);
    let sagas = Sagas::builder(&outbox)
        .register(place_order())
        .lease(lease)
        .poll(Duration::from_millis(100));
    let sagas = sagas.start().await.unwrap();
    // Polled first, so that it listens for signals when the test reads the line.
    let running = run_until_signal([sagas.into()], ENDS_WITHIN);
    let (ended, ()) = tokio::join!(running, async { println!("up") });
    println!("ended {ended:?}");
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
