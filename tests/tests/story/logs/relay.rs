//! Destinations that are misconfigured or down, and dead letters.

use super::{assert_line, with_logs};
use crate::support::{Answer, Destination, Logs, SOON, World, relay};
use outbox_http::{HttpPublisher, HttpReceiver};
use outbox_sea_orm::{
    failure::RetryPolicy,
    transport::{Route, everything},
};
use std::time::Duration;
use tests::wait_until;
use tokio::net::TcpListener;
use tracing::Level;

const LEASE: Duration = Duration::from_secs(3);
const SENDERS: &str = "whsec_c2VjcmV0LW9mLXRoZS1zZW5kZXItMDEyMzQ1Njc=";
const RECEIVERS: &str = "whsec_c2VjcmV0LW9mLXRoZS1yZWNlaXZlci0wMTIzNDU=";

#[test]
fn a_port_that_nobody_listens_on_is_logged_with_route_destination_class_and_error_and_once() {
    with_logs(async |world: &World, logs: &Logs| {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let publisher =
            HttpPublisher::new(format!("http://127.0.0.1:{port}/events")).unwrap().allow_loopback();
        let publisher = publisher.signed(SENDERS);
        let source = world.source();
        let relay =
            relay(&source, LEASE).route("billing", everything(), publisher).start().await.unwrap();
        for n in 1..=20 {
            world.emit("k", n).await;
        }
        let line = logs.wait_for("breaker open").await;
        assert_line(&line, Level::WARN, &["route", "destination", "class", "error"]);
        assert_eq!((line.field("route"), line.field("class")), ("billing", "unavailable"));
        assert!(line.field("destination").contains(&port.to_string()), "{line:?}");
        let attempts = async || {
            let lines = logs.at_least(Level::DEBUG);
            tests::above(
                lines.iter().filter(|line| line.text.contains("an attempt to publish")).count(),
                2,
            )
        };
        wait_until(SOON, "each attempt is there at DEBUG", attempts).await;
        let warned = logs.at_least(Level::WARN);
        assert_eq!(warned.len(), 1, "further failures are summed up once a minute: {warned:#?}");
        relay.shutdown(SOON).await.unwrap();
    });
}

#[test]
fn a_secret_that_does_not_fit_is_logged_by_both_sides_and_shown_by_none() {
    with_logs(async |world: &World, logs: &Logs| {
        let (router, _subscriber) =
            HttpReceiver::builder().path("/events").verify(RECEIVERS).build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = async { axum::serve(listener, router).await };
        let publisher = HttpPublisher::new(format!("http://127.0.0.1:{port}/events")).unwrap();
        let publisher = publisher.allow_loopback().signed(SENDERS);
        let source = world.source();
        let relay =
            relay(&source, LEASE).route("billing", everything(), publisher).start().await.unwrap();
        world.emit("a-secret-key", 1).await;
        let both = async {
            let received = logs.wait_for("the receiver has refused a request").await;
            assert_line(&received, Level::WARN, &["path", "status", "reason", "next"]);
            assert_eq!((received.field("path"), received.field("status")), ("/events", "401"));
            assert!(received.field("next").contains("the same secret"), "{received:?}");
            let sent = logs.wait_for("breaker open").await;
            assert!(sent.field("error").contains("401"), "{sent:?}");
            relay.shutdown(SOON).await.unwrap();
        };
        tokio::select! {
            () = both => {}
            ended = served => panic!("the receiver has ended: {ended:?}"),
        }
        logs.assert_never(&[&SENDERS[6..], &RECEIVERS[6..], "a-secret-key"]);
    });
}

#[test]
fn a_first_failed_attempt_says_what_happens_next_and_a_dead_letter_everything_but_the_key() {
    with_logs(async |world: &World, logs: &Logs| {
        let destination = Destination::scripted(|sent, _| {
            if sent.payload.contains("a-secret-key") {
                Answer::Transient
            } else {
                Answer::Confirmed
            }
        });
        let policy = RetryPolicy::attempts(2, Duration::from_millis(20));
        let source = world.source();
        let route =
            Route::new("billing", everything(), destination.publisher("billing")).retry(policy);
        let relay = relay(&source, LEASE).add_route(route).start().await.unwrap();
        world.emit("a-secret-key", 1).await;
        let failed = logs.wait_for("a publish has failed").await;
        assert_line(&failed, Level::WARN, &["route", "class", "error", "next"]);
        assert_eq!((failed.field("route"), failed.field("class")), ("billing", "transient"));
        assert!(failed.field("next").contains("tried again"), "{failed:?}");
        let letter = logs.wait_for("an event is a dead letter").await;
        let fields = [
            "letter",
            "event",
            "message_id",
            "topic",
            "event_type",
            "key_hash",
            "route",
            "reason",
            "attempts",
        ];
        assert_line(&letter, Level::WARN, &fields);
        assert_line(&letter, Level::WARN, &["error"]);
        assert_eq!((letter.field("reason"), letter.field("attempts")), ("exhausted", "2"));
        relay.shutdown(SOON).await.unwrap();
        logs.assert_never(&["a-secret-key"]);
    });
}
