//! Which failure is which: every row of the table, and the outcomes of a batch.

use crate::support::{
    SOON, STREAM, client, configured, failure, full, message_with, numbered, publisher, stream,
};
use outbox_core::{
    event::{Headers, MessageId, NewEvent},
    failure::FailureClass::{self, Permanent, Transient, Unavailable},
    transport::{LimitError, Limits, PublishError, Publisher, publish_all},
};
use outbox_nats::NatsPublisher;
use std::time::Duration;
use tests::servers::nats;
use tokio::net::TcpListener;

fn classes(
    outcomes: &[Result<outbox_core::transport::Receipt, PublishError>],
) -> Vec<Option<FailureClass>> {
    outcomes.iter().map(|outcome| outcome.as_ref().err().map(PublishError::class)).collect()
}

#[tokio::test]
async fn what_a_stream_stores_is_confirmed_with_its_sequence_and_a_repeat_is_confirmed_too() {
    let server = nats::start().await;
    let publisher = publisher(&server);
    for n in 1..=3 {
        let message = full();
        let receipt = publisher.publish(&message).await.expect("confirmed");
        assert_eq!((receipt.destination.as_deref(), receipt.position), (Some(STREAM), Some(n)));
        assert!(!receipt.duplicate);
        let repeat = publisher.publish(&message).await.expect("confirmed");
        assert_eq!((repeat.position, repeat.duplicate), (Some(n), true));
    }
    let mut stored = client(&server).await.get_stream(STREAM).await.expect("it is there");
    assert_eq!(stored.info().await.expect("described").state.messages, 3, "no repeat is stored");
}

#[tokio::test]
async fn a_subject_without_a_stream_may_get_one_and_the_error_says_how() {
    let server = nats::start().await;
    let alone = NatsPublisher::new(server.url()).expect("a URL");
    let error = failure(&alone).await;
    assert_eq!(error.class(), Transient);
    assert!(
        error
            .to_string()
            .contains("no stream takes the subject `orders` (503 no responders); create it"),
        "{error}"
    );
    publisher(&server).publish(&full()).await.expect("declared and confirmed");
    alone.publish(&full()).await.expect("confirmed now");
}

#[tokio::test]
async fn a_message_above_the_servers_limit_can_never_go_and_takes_no_neighbour_with_it() {
    let (server, _folder) = configured("max_payload: 5000").await;
    let publisher = publisher(&server);
    let large = message_with(|m| m.payload = vec![b'x'; 5000].into());
    let error = publisher.publish(&large).await.expect_err("too large with its headers");
    assert_eq!(error.class(), Permanent, "{error}");
    assert!(error.to_string().contains("of at most 5000"), "{error}");

    let mut batch: Vec<_> = (1..=20).map(|n| numbered(n, &format!("k{n}"))).collect();
    batch.insert(7, large);
    let outcomes = publish_all(&publisher, &batch).await;
    let expected: Vec<_> = (0..21).map(|place| (place == 7).then_some(Permanent)).collect();
    assert_eq!(classes(&outcomes), expected, "{outcomes:?}");
    // The longest message that the server takes.
    let mut length = 5000;
    let receipt = loop {
        length -= 1;
        let message = message_with(|m| m.payload = vec![b'x'; length].into());
        match publisher.publish(&message).await {
            Err(error) if error.class() == Permanent => {}
            other => break other,
        }
    };
    receipt.expect("what is not too large by our count is not too large for the server");

    let small = publisher.with_limits(Limits::default().max_payload(100));
    let error = small.publish(&message_with(|m| m.payload = vec![b'x'; 101].into())).await;
    let error = error.expect_err("longer than configured");
    assert_eq!(
        (error.class(), error.to_string().as_str()),
        (Permanent, "the payload has 101 bytes, of at most 100")
    );
}

fn event(topic: &str, payload: usize) -> NewEvent {
    NewEvent {
        message_id: MessageId::generate(),
        event_type: "order.placed".into(),
        event_version: 1,
        topic: topic.into(),
        aggregate_type: None,
        key: None,
        content_type: "application/json".into(),
        payload: vec![b'1'; payload].into(),
        headers: Headers::new(),
        ttl: None,
        retry: None,
    }
}

#[tokio::test]
async fn an_illegal_subject_is_refused_when_the_event_is_emitted_or_can_never_go() {
    let server = nats::start().await;
    let publisher = publisher(&server);
    let limits = publisher.limits();
    assert_eq!(limits.check("r", &event("orders", 1_000_000)), Ok(()));
    let too_long = limits.check("r", &event("orders", 1024 * 1024));
    assert!(matches!(too_long, Err(LimitError::TooLong { .. })), "{too_long:?}");
    for topic in ["a b", "orders.*", "orders.>", "orders..a", "$JS.API.INFO"] {
        let refused = limits.check("r", &event(topic, 1));
        assert!(matches!(&refused, Err(LimitError::Topic { .. })), "{topic}: {refused:?}");
        let sent = publisher.publish(&message_with(|m| m.topic = topic.into())).await;
        let error = sent.expect_err("no subject");
        assert_eq!(error.class(), Permanent, "{error}");
        assert!(error.to_string().contains("must be a subject of NATS"), "{error}");
    }
    let mapped = publisher.subject(|message| format!("orders.{}", message.event_type));
    assert_eq!(
        mapped.limits().check("r", &event("a b", 1)),
        Ok(()),
        "the topic is not the subject"
    );
    mapped.publish(&message_with(|m| m.topic = "a b".into())).await.expect("confirmed");
}

#[tokio::test]
async fn a_full_stream_refuses_and_the_message_may_go_later() {
    let server = nats::start().await;
    let publisher = publisher(&server).declare([stream().max_messages(3)]);
    let batch: Vec<_> = (1..=3).map(|n| numbered(n, "k")).collect();
    assert_eq!(classes(&publish_all(&publisher, &batch).await), [None, None, None]);
    let error = failure(&publisher).await;
    assert_eq!(error.class(), Transient);
    assert!(error.to_string().contains("maximum messages exceeded"), "{error}");
    let stored = client(&server).await.get_stream(STREAM).await.expect("it is there");
    stored.purge().await.expect("purged");
    publisher.publish(&full()).await.expect("there is room again");
}

#[tokio::test]
async fn a_stream_that_differs_makes_the_destination_unavailable_and_says_what() {
    let server = nats::start().await;
    publisher(&server).publish(&full()).await.expect("confirmed");
    let other = stream().max_age(Duration::from_hours(1)).max_messages(5);
    let error = failure(&publisher(&server).declare([other])).await;
    assert_eq!(error.class(), Unavailable);
    for part in [
        "the stream `ORDERS` exists with other settings",
        "max_age is 0ns, declared is 3600s",
        "max_messages is None, declared is Some(5)",
        "nats stream edit ORDERS",
    ] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn a_server_without_jetstream_or_room_is_unavailable() {
    let accounts = "accounts { A { users: [{ user: ann, password: a }] },
        B { jetstream: { max_mem: 0, max_file: 1000 }, users: [{ user: bob, password: b }] } }";
    let (server, _folder) = configured(accounts).await;
    let to = |login: &str| {
        let url = server.url().replace("nats://", &format!("nats://{login}@"));
        NatsPublisher::new(url).expect("a URL").declare([stream()])
    };
    let error = failure(&to("ann:a")).await;
    assert_eq!(error.class(), Unavailable, "{error}");
    assert!(error.to_string().contains("JetStream not enabled"), "{error}");
    let bob = to("bob:b");
    let mut sent = Ok(());
    for _ in 0..20 {
        sent = bob.publish(&full()).await.map(|_| ());
        if sent.is_err() {
            break;
        }
    }
    let error = sent.expect_err("a kilobyte is soon full");
    assert_eq!(error.class(), Unavailable, "{error}");
}

#[tokio::test]
async fn a_user_that_may_not_publish_is_told_and_the_destination_is_unavailable() {
    let users = "authorization { users: [{ user: eve, password: e, permissions: {
        publish: { deny: \"orders\" } } }] }";
    let (server, _folder) = configured(users).await;
    let url = server.url().replace("nats://", "nats://eve:e@");
    let publisher = NatsPublisher::new(url).expect("a URL").declare([stream()]);
    let refused = tokio::time::timeout(Duration::from_secs(5), publisher.publish(&full())).await;
    let error = refused.expect("before the publisher's timeout").expect_err("denied");
    assert_eq!(error.class(), Unavailable);
    assert!(error.to_string().contains("denies publishing to `orders`"), "{error}");
    let allowed = publisher.subject(|_| "orders.placed".to_owned());
    allowed.publish(&full()).await.expect("another subject is allowed");
}

#[tokio::test]
async fn an_address_without_a_listener_makes_the_destination_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    for url in [format!("nats://{address}"), "nats://no-such-host.invalid".to_owned()] {
        let error = failure(&NatsPublisher::new(url).expect("a URL")).await;
        assert_eq!(error.class(), Unavailable);
        assert!(error.to_string().contains("no connection to the server"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_accepts_and_is_silent_is_unavailable_in_time_and_its_socket_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let publisher = NatsPublisher::new(format!("nats://{address}"))
        .expect("a URL")
        .timeout(Duration::from_millis(200));
    let (error, (mut stream, _)) =
        tokio::join!(failure(&publisher), async { listener.accept().await.expect("a connection") });
    assert_eq!(error.class(), Unavailable, "{error}");
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
    tokio::time::timeout(SOON, read).await.expect("the connection is ended").expect("orderly");
}

#[tokio::test]
async fn a_publish_that_is_given_up_disturbs_no_other() {
    let server = nats::start().await;
    let publisher = publisher(&server);
    publisher.publish(&full()).await.expect("confirmed");
    for n in 1..=20 {
        let cut =
            tokio::time::timeout(Duration::from_micros(n * 50), publisher.publish(&full())).await;
        drop(cut);
        publisher.publish(&full()).await.expect("the next is confirmed");
    }
}
