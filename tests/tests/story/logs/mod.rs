//! Logs: no line in a run without failures, and one line at once for a failure, with its remedy.

mod consumer;
mod quiet;
mod relay;
mod sagas;
mod sensitive;
mod waiting;
mod write_lock;

use crate::support::{LogLine, Logs, World};
use tests::databases::{Database, TempDatabase};
use tracing::Level;

/// Runs a test of the logs on a file of SQLite: the lines are the same on every database.
fn with_logs(story: impl AsyncFnOnce(&World, &Logs)) {
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

/// Fails where a line has another level or lacks a field.
fn assert_line(line: &LogLine, level: Level, fields: &[&str]) {
    assert_eq!(line.level, level, "{line:?}");
    let missing: Vec<_> = fields.iter().filter(|field| line.field(field).is_empty()).collect();
    assert!(missing.is_empty(), "{missing:?} of {line:?}");
}
