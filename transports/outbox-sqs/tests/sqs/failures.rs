//! What the service refuses, and what it suffers.

use crate::support::{
    FIFO, SOON, STANDARD, client, failure, full, message_with, next, next_at_last, next_failure,
    number, numbered, publish, publisher, publisher_at, start, subscriber,
};
use axum::{Router, http::StatusCode, routing::post};
use outbox_core::{
    failure::FailureClass::{self, Permanent, Unavailable},
    transport::{Limits, PublishError, Publisher, publish_all},
};
use outbox_sqs::{SnsPublisher, SqsPublisher, SqsQueue, SqsSubscriber};
use std::time::Duration;
use tests::wait_until;

/// A service that gives one reply to everything.
async fn replying(status: u16, body: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("sqs+http://{}/000000000000", listener.local_addr().expect("an address"));
    let reply = move || async move {
        let status = StatusCode::from_u16(status).expect("a status");
        (status, [("content-type", "application/x-amz-json-1.0")], body)
    };
    let router = Router::new().route("/", post(reply));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_of_the_service_has_its_class_and_says_what_to_do() {
    for (status, body, class, responded, part) in [
        (
            400,
            r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"gone"}"#,
            Unavailable,
            true,
            "create the queue",
        ),
        (
            403,
            r#"{"__type":"AccessDenied","message":"not authorized"}"#,
            Unavailable,
            true,
            "allow the action to this user or role",
        ),
        (
            403,
            r#"{"__type":"ExpiredTokenException","message":"expired"}"#,
            Unavailable,
            true,
            "renew the token",
        ),
        (
            403,
            r#"{"__type":"InvalidClientTokenId","message":"no such key"}"#,
            Unavailable,
            true,
            "an access key of the account",
        ),
        (
            400,
            r#"{"__type":"com.amazonaws.sqs#RequestThrottled","message":"slow"}"#,
            Unavailable,
            true,
            "asks to send less",
        ),
        (429, "{}", Unavailable, true, "asks to send less"),
        (500, r#"{"__type":"InternalFailure"}"#, Unavailable, false, "InternalFailure"),
        (503, "down for maintenance", Unavailable, false, "the service replied"),
        (400, r#"{"__type":"OfALaterYear","message":"?"}"#, Unavailable, true, "OfALaterYear"),
    ] {
        let url = replying(status, body).await;
        let publisher = SqsPublisher::new(&url).expect("a URL").queue(STANDARD);
        let error = failure(&publisher).await;
        assert_eq!((error.class(), error.has_responded()), (class, responded), "{body}: {error}");
        assert!(error.to_string().contains(part), "{part}: {error}");
        let mut subscriber = SqsSubscriber::new(&url, STANDARD).expect("a URL");
        let error = next_failure(&mut subscriber).await;
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declaration_that_the_service_refuses_is_no_fault_of_the_messages() {
    let body = r#"{"__type":"InvalidAttributeValue","message":"no such setting"}"#;
    let url = replying(400, body).await;
    let publisher = SqsPublisher::new(&url).expect("a URL").queue(STANDARD);
    let publisher = publisher.declare([SqsQueue::new(STANDARD).retention(Duration::from_hours(1))]);
    let error = failure(&publisher).await;
    assert_eq!((error.class(), error.has_responded()), (Unavailable, true), "{error}");
    assert!(error.to_string().contains("queue `orders`: the service replied"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_and_its_dead_letters_are_declared_in_any_order_with_their_own_settings() {
    let server = start().await;
    let queue = || SqsQueue::new(STANDARD).dead_letters("dead", 2);
    let dead = || SqsQueue::new("dead").retention(Duration::from_hours(1));
    for declared in [[queue(), dead()], [dead(), queue()]] {
        let publisher = publisher(&server).declare(declared);
        publisher.publish(&full()).await.expect("confirmed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_refuses_the_sender_is_classified_alike() {
    const DENIED: &str = "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error>\
        <Type>Sender</Type><Code>AuthorizationError</Code><Message>not authorized</Message></Error>\
        <RequestId>1</RequestId></ErrorResponse>";
    let publisher = SnsPublisher::new(replying(403, DENIED).await).expect("a URL").topic("events");
    let error = failure(&publisher).await;
    assert_eq!((error.class(), error.has_responded()), (Unavailable, true), "{error}");
    assert!(error.to_string().contains("topic `events`: the service replied AuthorizationError"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_missing_counts_as_down_and_one_that_is_declared_is_made_again() {
    let server = start().await;
    let undeclared = SqsPublisher::new(server.url()).expect("a URL").queue(STANDARD);
    let error = failure(&undeclared).await;
    assert_eq!((error.class(), error.has_responded()), (Unavailable, true), "{error}");
    assert!(error.to_string().starts_with("queue `orders`: the service replied"), "{error}");

    let (publisher, mut subscriber) = (publisher(&server), subscriber(&server));
    publish(&publisher, "k", [1]).await;
    next(&mut subscriber).await.ack().await.expect("acknowledged");
    undeclared.publish(&full()).await.expect("it is there now");
    client(&server).delete(STANDARD).await;
    let error = failure(&publisher).await;
    assert_eq!((error.class(), error.has_responded()), (Unavailable, true), "{error}");
    publisher.publish(&numbered(3, "k")).await.expect("it is declared again");
    let delivery = next_at_last(&mut subscriber).await;
    assert_eq!(number(&delivery), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_exists_with_other_settings_stays_as_it_is_and_the_error_says_so() {
    let server = start().await;
    publisher(&server).publish(&full()).await.expect("confirmed");
    let other = SqsQueue::new(STANDARD).retention(Duration::from_hours(1));
    let error = failure(&publisher(&server).declare([other])).await;
    assert_eq!(error.class(), Unavailable, "{error}");
    assert!(error.to_string().contains("exists with other settings"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_above_the_limit_can_never_go_and_takes_no_neighbour_with_it() {
    let server = start().await;
    let publisher = publisher(&server).with_limits(Limits::default().max_payload(1_000));
    let large = message_with(|m| m.payload = vec![b'x'; 1_001].into());
    let mut batch: Vec<_> = (1..=20).map(|n| numbered(n, &format!("k{n}"))).collect();
    batch.insert(7, large);
    expect(&publisher, &batch, 7, Permanent).await;
    let huge = message_with(|m| m.payload = vec![b'x'; 1_048_577].into());
    let error = publisher.with_limits(Limits::default()).publish(&huge).await.expect_err("huge");
    assert_eq!(error.class(), Permanent);
    assert!(error.to_string().contains("of at most 1048576"), "{error}");
}

/// Publishes a batch of which one message fails.
async fn expect(
    publisher: &SqsPublisher,
    batch: &[outbox_core::event::Message],
    failing: usize,
    class: FailureClass,
) {
    let outcomes = publish_all(publisher, batch).await;
    for (place, outcome) in outcomes.iter().enumerate() {
        let found = outcome.as_ref().err().map(PublishError::class);
        assert_eq!(found, (place == failing).then_some(class), "message {place}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_share_no_request_that_is_too_large() {
    const EACH: usize = 300_000;
    let server = start().await;
    let batch: Vec<_> = (0..8)
        .map(|n| {
            let mut parts = numbered(n, &format!("k{n}")).into_parts();
            parts.content_type = "text/plain".into();
            parts.payload = vec![b'x'; EACH].into();
            outbox_core::event::Message::new(parts)
        })
        .collect();
    let outcomes = publish_all(&publisher(&server), &batch).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(client(&server).depth(STANDARD).await.0, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_queue_is_missing_takes_no_neighbour_of_its_batch_with_it() {
    let server = start().await;
    let queues = (0..4).filter(|n| *n != 2).map(|n| SqsQueue::new(format!("q{n}")));
    let publisher = SqsPublisher::new(server.url())
        .expect("a URL")
        .declare(queues)
        .queue_of(|message| message.key.clone().unwrap_or_default());
    let batch: Vec<_> = (0..4).map(|n| numbered(n, &format!("q{n}"))).collect();
    expect(&publisher, &batch, 2, Unavailable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_silent_or_gone_is_unavailable_and_found_again_without_a_restart() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let mut server = start().await;
    let publisher = publisher_at(&server.url(), FIFO).timeout(TIMEOUT);
    let goes = async || publisher.publish(&full()).await.is_ok();
    // A busy machine may need more than one try.
    wait_until(SOON, "the publisher begins", goes).await;
    server.pause();
    let error = failure(&publisher).await;
    assert_eq!((error.class(), error.has_responded()), (Unavailable, false), "{error}");
    assert!(error.to_string().contains("did not confirm within 2s"), "{error}");
    server.resume();
    wait_until(SOON, "the publisher goes on", goes).await;

    server.stop().await;
    let error = failure(&publisher).await;
    assert_eq!((error.class(), error.has_responded()), (Unavailable, false), "{error}");
    assert!(error.to_string().contains("no connection to the service"), "{error}");
    server.start().await;
    // It has forgotten its queues: they are declared again.
    wait_until(SOON, "the publisher goes on", goes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_publishes_share_the_wait_for_a_service_that_replies_nothing() {
    const TIMEOUT: Duration = Duration::from_millis(500);
    // Connections are accepted by the system and never served.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("sqs+http://{}", listener.local_addr().expect("an address"));
    let publisher = SqsPublisher::new(url).expect("a URL").queue(STANDARD).timeout(TIMEOUT);
    let batch: Vec<_> = (0..30).map(|n| numbered(n, &format!("k{n}"))).collect();
    let publishes = batch.iter().map(|message| publisher.publish(message));
    let all = futures_util::future::join_all(publishes);
    let outcomes = tokio::time::timeout(TIMEOUT * 10, all).await.expect("not one after the other");
    for outcome in outcomes {
        assert_eq!(outcome.expect_err("not served").class(), Unavailable);
    }
}
