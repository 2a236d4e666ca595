//! Publishers with long timeouts, and events that wait.

use super::{assert_line, with_logs};
use crate::support::{Answer, Destination, Logs, SOON, Sample, World, relay};
use outbox_http::HttpPublisher;
use outbox_sea_orm::{
    Outbox,
    failure::RetryPolicy,
    transport::{Route, everything},
};
use std::time::Duration;
use tracing::Level;

const LEASE: Duration = Duration::from_secs(3);

#[test]
fn a_publisher_that_waits_longer_than_the_deadline_of_its_route_is_told_at_the_start() {
    with_logs(async |world: &World, logs: &Logs| {
        let route = |name: &str, deadline: u64| {
            let publisher =
                HttpPublisher::new("http://127.0.0.1:1/events").unwrap().allow_loopback();
            let publisher = publisher.timeout(Duration::from_secs(10));
            Route::new(name, everything(), publisher).deadline(Duration::from_secs(deadline))
        };
        let source = world.source();
        let relay = relay(&source, LEASE).add_route(route("short", 3)).add_route(route("long", 10));
        relay.start().await.unwrap().shutdown(SOON).await.unwrap();
        let lines = logs.with("waits longer for an answer than the deadline of its route");
        let routes: Vec<_> = lines.iter().map(|line| line.field("route")).collect();
        assert_eq!(routes, ["short"], "{lines:#?}");
        assert_line(&lines[0], Level::WARN, &["timeout", "deadline"]);
    });
}

#[test]
fn an_event_that_is_rejected_for_long_and_never_given_up_is_told_once() {
    with_logs(async |world: &World, logs: &Logs| {
        let destination = Destination::scripted(|_, _| Answer::Permanent);
        let source = world.source();
        let briefly = Duration::from_secs(1);
        let route = Route::new("billing", everything(), destination.publisher("billing"))
            .give_up_rejected(briefly);
        let relay = relay(&source, LEASE).add_route(route.retry(RetryPolicy::default().endless()));
        let relay = relay.start().await.unwrap();
        world.emit("a-secret-key", 1).await;
        let stays = logs.wait_for("it stays, and the later events of its key wait behind it").await;
        assert_line(&stays, Level::WARN, &["route", "event", "answer"]);
        relay.shutdown(SOON).await.unwrap();
        assert_eq!(world.count("outbox_dead_letters").await, 0);
        logs.assert_never(&["a-secret-key"]);
    });
}

#[test]
fn events_that_no_relay_publishes_are_told_of_once_and_not_where_a_relay_runs_elsewhere() {
    with_logs(async |world: &World, logs: &Logs| {
        // To the outbox each handle is a process.
        let save = async || {
            let warn_after = Duration::from_millis(100);
            let outbox = Outbox::builder(world.db.clone())
                .source("story")
                .warn_without_relay_after(warn_after);
            let outbox = outbox.build().await.unwrap();
            for n in 1..=3 {
                let tx = outbox.begin().await.unwrap();
                tx.emit(Sample::new("k", n)).unwrap();
                tx.commit().await.unwrap();
            }
            outbox
        };
        let outbox = save().await;
        let line = logs.wait_for("no relay owns a partition").await;
        assert_line(&line, Level::WARN, &["source", "pending"]);
        assert_eq!((line.field("source"), line.field("pending")), ("story", "3"));
        let (source, destination) = (world.source(), Destination::new());
        let relay = relay(&source, LEASE)
            .route("all", everything(), destination.publisher("all"))
            .start()
            .await
            .unwrap();
        destination.wait_for(3, SOON).await;
        let another = save().await;
        let seen = async || {
            logs.at_least(Level::DEBUG)
                .iter()
                .any(|line| line.text.contains("a relay owns partitions"))
        };
        tests::wait_until(SOON, "the relay is seen", seen).await;
        drop((outbox, another));
        assert_eq!(logs.with("no relay owns a partition").len(), 1);
        relay.shutdown(SOON).await.unwrap();
    });
}
