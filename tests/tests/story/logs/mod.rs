//! What is logged: nothing while all goes well, and what goes wrong at once, with what to do.

mod consumer;
mod held;
mod quiet;
mod relay;
mod sagas;
mod stays;

use crate::stage::{LogLine, Logs, World};
use tests::databases::{Database, TempDatabase};
use tracing::Level;

/// Tells a story about the log on a file of SQLite: what is logged is the same on every database.
fn told(story: impl AsyncFnOnce(&World, &Logs)) {
    let logs = Logs::default();
    let listens = logs.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || listens.listen())
        .build();
    logs.listen();
    runtime.expect("a runtime can be made").block_on(async {
        let db = TempDatabase::create(Database::Sqlite).await;
        let world = World::open(&db).await;
        story(&world, &logs).await;
    });
}

/// Fails where a line is of another level, or lacks a field.
fn assert_line(line: &LogLine, level: Level, fields: &[&str]) {
    assert_eq!(line.level, level, "{line:?}");
    let missing: Vec<_> = fields.iter().filter(|field| line.field(field).is_empty()).collect();
    assert!(missing.is_empty(), "{missing:?} of {line:?}");
}
