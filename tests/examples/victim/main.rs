//! A process to be killed: it plays the part that its argument describes, and says in lines what happens.
#![expect(clippy::print_stdout, reason = "its lines are what the test waits for")]
#![expect(
    clippy::unwrap_used,
    reason = "a tool of tests: what goes wrong ends it, and the test shows it"
)]

#[path = "../../tests/story/stage/event.rs"]
mod event;
#[path = "../../tests/story/stage/handlers.rs"]
mod handlers;
#[path = "../../tests/story/stage/kafka.rs"]
mod kafka;
mod link;
#[path = "../../tests/story/stage/part.rs"]
mod part;
mod play;
mod stop;
#[path = "../../tests/story/stage/wire.rs"]
mod wire;

use part::Part;
use std::{io::IsTerminal, process::ExitCode};

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let part: Part = serde_json::from_str(&std::env::args().nth(1).unwrap()).unwrap();
    let told = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(std::io::stdout().is_terminal());
    told.init();
    if let Some((point, nth)) = &part.stops_at {
        stop::at(point, *nth);
    }
    play::play(part).await
}
