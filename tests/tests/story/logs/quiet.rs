//! A run in which nothing fails.

use super::with_logs;
use crate::support::{Destination, Logs, Queue, SOON, World, consumer, keys, message, relay};
use futures_util::future::join_all;
use outbox_sea_orm::transport::everything;
use std::time::Duration;
use tracing::Level;

#[test]
fn a_run_in_which_nothing_fails_logs_nothing_at_warn() {
    with_logs(async |world: &World, logs: &Logs| {
        let (source, destination) = (world.source(), Destination::new());
        let relay = relay(&source, Duration::from_secs(3)).route(
            "all",
            everything(),
            destination.publisher("all"),
        );
        let relay = relay.start().await.unwrap();
        let (queue, subscriber) = Queue::open();
        let consumer =
            consumer(&world.outbox, "effect").subscribe(subscriber).start().await.unwrap();
        world.emit_all(&keys(10, 5)).await;
        join_all((1..=120).map(|n| queue.deliver(Ok(message("k", n))))).await;
        world.drained(SOON).await;
        consumer.shutdown(SOON).await.unwrap();
        relay.shutdown(SOON).await.unwrap();
        assert_eq!(world.count("story_effects").await, 120);
        // A slow disk is no fault of the framework.
        let is_slow = |text: &str| text.contains("write lock") || text.contains("is slow");
        let lines: Vec<_> =
            logs.at_least(Level::WARN).into_iter().filter(|line| !is_slow(&line.text)).collect();
        assert!(lines.is_empty(), "{lines:#?}");
        assert!(!logs.at_least(Level::INFO).is_empty(), "the log is heard");
    });
}
