//! Which failure is which: every row of the table, and the outcomes of a batch.

use crate::{
    fake::{Fake, Reaction, WELCOME, disconnect, puback},
    support::{
        QUIET, SOON, configured, failure, full, message_with, numbered, publisher, subscribed,
    },
};
use outbox_core::{
    event::{Headers, MessageId, NewEvent},
    failure::FailureClass::{self, Permanent, Transient, Unavailable},
    transport::{Batch, LimitError, PublishError, Publisher, Receipt, publish_all},
};
use outbox_mqtt::MqttPublisher;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tests::servers::mosquitto;
use tokio::{net::TcpListener, time::timeout};

fn classes(outcomes: &[Result<Receipt, PublishError>]) -> Vec<Option<FailureClass>> {
    outcomes.iter().map(|outcome| outcome.as_ref().err().map(PublishError::class)).collect()
}

/// Publishes a message among twenty others that the server treats apart by its content `poison`;
/// gives its error. Fails where another one fails, or that one with another class.
async fn poison_among_others(publisher: &MqttPublisher, class: FailureClass) -> PublishError {
    let mut batch: Vec<_> = (1..=20).map(|n| numbered(n, &format!("k{n}"))).collect();
    batch.insert(3, message_with(|m| m.payload = "poison".into()));
    let mut outcomes = timeout(SOON, publish_all(publisher, &batch)).await.expect("in time");
    let expected: Vec<_> = (0..21).map(|place| (place == 3).then_some(class)).collect();
    assert_eq!(classes(&outcomes), expected, "{outcomes:?}");
    outcomes.swap_remove(3).expect_err("it has failed")
}

#[tokio::test]
async fn a_topic_without_a_subscription_may_get_one_and_the_error_says_so() {
    let server = mosquitto::start().await;
    let publisher = publisher(&server);
    let error = failure(&publisher).await;
    assert_eq!(error.class(), Transient);
    assert!(
        error.to_string().contains(
            "no subscription takes the topic `orders`: no matching subscribers (0x10); start its consumer first"
        ),
        "{error}"
    );
    let _subscriber = subscribed(&server).await;
    let receipt = publisher.publish(&full()).await.expect("confirmed");
    assert_eq!(receipt.destination.as_deref(), Some("orders"));
}

#[tokio::test]
async fn each_code_of_a_confirmation_has_its_class_and_takes_no_neighbour_with_it() {
    // The payload says which code the server answers with.
    let fake = Fake::start(WELCOME, |publish| {
        let text = std::str::from_utf8(&publish.payload).expect("text");
        puback(publish, text.parse().expect("a code"))
    })
    .await;
    let publisher = MqttPublisher::new(fake.url()).expect("a URL");
    let codes = [
        (0x00, None),
        (0x10, Some(Transient)),
        (0x80, Some(Transient)),
        (0x83, Some(Transient)),
        (0x87, Some(Unavailable)),
        (0x90, Some(Permanent)),
        (0x91, Some(Transient)),
        (0x95, Some(Permanent)),
        (0x97, Some(Transient)),
        (0x99, Some(Permanent)),
        (0xd7, Some(Transient)),
        (0x01, None),
    ];
    let batch: Vec<_> = codes
        .iter()
        .map(|(code, _)| message_with(|m| m.payload = code.to_string().into()))
        .collect();
    let outcomes = publish_all(&publisher, &batch).await;
    let expected: Vec<_> = codes.iter().map(|(_, class)| *class).collect();
    assert_eq!(classes(&outcomes), expected, "{outcomes:?}");
}

#[tokio::test]
async fn a_message_above_the_servers_limit_can_never_go_and_takes_no_neighbour_with_it() {
    let large = message_with(|m| m.payload = vec![b'x'; 5000].into());
    // One limit is announced, the other is answered with a code that the standard does not list.
    for (setting, part) in
        [("max_packet_size 5000", "of at most 5000"), ("message_size_limit 4000", "0x95")]
    {
        let (server, _folder) = configured(setting).await;
        let _subscriber = subscribed(&server).await;
        let publisher = publisher(&server);
        let mut batch: Vec<_> = (1..=20).map(|n| numbered(n, &format!("k{n}"))).collect();
        batch.insert(7, large.clone());
        let outcomes = publish_all(&publisher, &batch).await;
        let expected: Vec<_> = (0..21).map(|place| (place == 7).then_some(Permanent)).collect();
        assert_eq!(classes(&outcomes), expected, "{outcomes:?}");
        let error = outcomes[7].as_ref().expect_err("too large").to_string();
        assert!(error.contains(part), "{error}");
    }
    // The longest message that the server takes.
    let (server, _folder) = configured("max_packet_size 5000").await;
    let _subscriber = subscribed(&server).await;
    let publisher = publisher(&server);
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
}

fn event(topic: &str, payload: usize) -> NewEvent {
    NewEvent {
        message_id: MessageId::generate(),
        event_type: "order.placed".into(),
        event_version: 1,
        topic: topic.into(),
        aggregate_type: None,
        key: None,
        content_type: "application/octet-stream".into(),
        payload: vec![0; payload].into(),
        headers: Headers::new(),
        ttl: None,
        retry: None,
    }
}

#[tokio::test]
async fn what_the_server_would_refuse_is_refused_when_it_is_emitted() {
    let (server, _folder) = configured("max_packet_size 100000").await;
    let publisher = MqttPublisher::connect(server.url()).await.expect("it is there");
    let check = |publisher: &MqttPublisher, event| publisher.limits().check("billing", &event);
    assert_eq!(check(&publisher, event("orders/1", 1_000)), Ok(()));
    for wrong in ["orders/+", "#", "a\0b", "$SYS/x", "a\u{ffff}"] {
        let error = check(&publisher, event(wrong, 1)).expect_err("illegal");
        assert!(matches!(error, LimitError::Topic { .. }), "{error}");
        assert!(error.to_string().contains("a topic must be a topic of MQTT"), "{error}");
    }
    let error = check(&publisher, event("orders", 100_000)).expect_err("too large");
    assert!(matches!(error, LimitError::TooLong { limit: 100_000, .. }), "{error}");
    let prefixed = publisher.topic(|message| format!("shop/{}", message.topic));
    assert_eq!(check(&prefixed, event("#", 1)), Ok(()), "the topic is computed");
}

/// Mosquitto ends the connection over a topic with more than 200 levels.
fn to_deep_topics(publisher: MqttPublisher) -> MqttPublisher {
    publisher.topic(|message| match message.key.as_deref() {
        Some("deep") => "a/".repeat(201),
        _ => "orders".to_owned(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_that_ends_its_connection_is_refused_and_its_neighbours_are_confirmed() {
    let server = mosquitto::start().await;
    let _subscriber = subscribed(&server).await;
    let publisher = to_deep_topics(publisher(&server));
    let mut batch: Vec<_> = (1..=60).map(|n| numbered(n, &format!("k{n}"))).collect();
    batch.insert(17, numbered(99, "deep"));
    let outcomes = timeout(SOON, publish_all(&publisher, &batch)).await.expect("in time");
    let failed: Vec<_> = (0..61).filter(|place| outcomes[*place].is_err()).collect();
    assert_eq!(failed, [17], "{outcomes:?}");
    let error = outcomes[17].as_ref().expect_err("refused");
    assert_ne!(error.class(), Unavailable, "it is about the message: {error}");
    assert!(error.to_string().contains("while this message alone was in flight"), "{error}");
    publisher.publish(&full()).await.expect("the next goes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_closed_without_a_word_over_one_message_costs_that_one_an_attempt() {
    let mut fake = Fake::start(WELCOME, |publish| match &publish.payload[..] {
        b"poison" => Reaction::Close,
        _ => puback(publish, 0),
    })
    .await;
    let publisher = MqttPublisher::new(fake.url()).expect("a URL");
    poison_among_others(&publisher, Transient).await;

    // What may not arrive twice is sent once.
    while fake.came.try_recv().is_ok() {}
    let poison = message_with(|m| m.payload = "poison".into());
    let mut once = Batch::new(vec![poison]).at_most_once(true);
    publisher.publish_batch(&mut once).await;
    assert!(once.into_outcomes()[0].as_ref().is_some_and(Result::is_err));
    assert!(fake.came.recv().await.is_some());
    assert!(fake.came.try_recv().is_err(), "it was sent once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_ended_with_an_unclear_code_over_one_message_fails_that_one_alone() {
    for (code, class, responded) in
        [(0x80, Transient, false), (0x83, Transient, false), (0x87, Unavailable, true)]
    {
        let fake = Fake::start(WELCOME, move |publish| match &publish.payload[..] {
            b"poison" => disconnect(code),
            _ => puback(publish, 0),
        })
        .await;
        let publisher = MqttPublisher::new(fake.url()).expect("a URL");
        let error = poison_among_others(&publisher, class).await;
        assert_eq!(error.has_responded(), responded, "{error:?}");
        assert!(error.to_string().contains("while this message alone was in flight"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_wait_longer_than_the_timeout_end_no_connection_that_confirms_others() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let welcome: &[u8] = &[0x20, 6, 0, 0, 3, 0x21, 0, 1];
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let anew = move || _ = counted.fetch_add(1, Ordering::Relaxed);
    let fake = Fake::start_anew(welcome, anew, |publish| match puback(publish, 0) {
        Reaction::Send(answer) => Reaction::Late(TIMEOUT / 5, answer),
        other => other,
    })
    .await;
    let publisher = MqttPublisher::new(fake.url()).expect("a URL").timeout(TIMEOUT);
    // One after the other, the last one after twice the timeout.
    let batch: Vec<_> = (1..=10).map(|n| numbered(n, &format!("k{n}"))).collect();
    let outcomes = timeout(SOON, publish_all(&publisher, &batch)).await.expect("in time");
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_a_message_and_then_ends_the_connection_blames_no_other() {
    // It refuses the culprit, and closes when the next message comes over the same connection.
    let doomed = Arc::new(std::sync::Mutex::new(false));
    let of_new = doomed.clone();
    let anew = move || *of_new.lock().expect("no panic under the lock") = false;
    let fake = Fake::start_anew(WELCOME, anew, move |publish| {
        let mut doomed = doomed.lock().expect("no panic under the lock");
        match &publish.payload[..] {
            b"poison" => {
                *doomed = true;
                puback(publish, 0x95)
            }
            _ if std::mem::take(&mut *doomed) => Reaction::Close,
            _ => puback(publish, 0),
        }
    })
    .await;
    let publisher = MqttPublisher::new(fake.url()).expect("a URL");
    poison_among_others(&publisher, Permanent).await;
}

#[tokio::test]
async fn no_more_is_in_flight_than_the_server_allows() {
    const WINDOW: usize = 3;
    let welcome: &[u8] = &[0x20, 6, 0, 0, 3, 0x21, 0, 3];
    let most = Arc::new(AtomicUsize::new(0));
    let (seen, held) = (most.clone(), std::sync::Mutex::new(Vec::new()));
    let fake = Fake::start(welcome, move |publish| {
        let mut held = held.lock().expect("no panic under the lock");
        held.push(publish.clone());
        seen.fetch_max(held.len(), Ordering::Relaxed);
        // Nothing is confirmed until the window is full: then all of it.
        if held.len() < WINDOW {
            return Reaction::Send(Vec::new());
        }
        let answers = held.drain(..).flat_map(|publish| match puback(&publish, 0) {
            Reaction::Send(bytes) => bytes,
            _ => Vec::new(),
        });
        Reaction::Send(answers.collect())
    })
    .await;
    let publisher = MqttPublisher::new(fake.url()).expect("a URL");
    let batch: Vec<_> = (1..=30).map(|n| numbered(n, &format!("k{n}"))).collect();
    let outcomes = timeout(SOON, publish_all(&publisher, &batch)).await.expect("in time");
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(most.load(Ordering::Relaxed), WINDOW);
}

#[tokio::test]
async fn a_message_that_is_not_confirmed_in_time_may_go_later_and_a_full_window_is_left() {
    let welcome: &[u8] = &[0x20, 6, 0, 0, 3, 0x21, 0, 1];
    let fake = Fake::start(welcome, |publish| match &publish.payload[..] {
        b"lost" => Reaction::Send(Vec::new()),
        _ => puback(publish, 0),
    })
    .await;
    let publisher = MqttPublisher::new(fake.url()).expect("a URL").timeout(QUIET);
    let error = publisher.publish(&message_with(|m| m.payload = "lost".into())).await;
    let error = error.expect_err("not confirmed");
    assert_eq!(error.class(), Transient);
    assert!(error.to_string().contains("did not confirm the message within 300ms"), "{error}");
    let error = failure(&publisher).await;
    assert_eq!(error.class(), Unavailable, "the window is full: {error}");
    publisher.publish(&full()).await.expect("a new connection has an empty one");
}

#[tokio::test]
async fn an_address_without_a_listener_makes_the_destination_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    for url in [format!("mqtt://{address}"), "mqtt://no-such-host.invalid".to_owned()] {
        let error = failure(&MqttPublisher::new(url).expect("a URL")).await;
        assert_eq!(error.class(), Unavailable);
        assert!(error.to_string().contains("no connection to"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_accepts_and_is_silent_is_unavailable_in_time_and_its_socket_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let publisher = MqttPublisher::new(format!("mqtt://{address}")).expect("a URL").timeout(QUIET);
    let (error, (mut stream, _)) =
        tokio::join!(failure(&publisher), async { listener.accept().await.expect("a connection") });
    assert_eq!(error.class(), Unavailable, "{error}");
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
    timeout(SOON, read).await.expect("the connection is ended").expect("orderly");
}

#[tokio::test]
async fn a_publish_that_is_given_up_disturbs_no_other() {
    let server = mosquitto::start().await;
    let _subscriber = subscribed(&server).await;
    let publisher = publisher(&server);
    publisher.publish(&full()).await.expect("confirmed");
    for n in 1..=20 {
        let cut = timeout(Duration::from_micros(n * 50), publisher.publish(&full())).await;
        drop(cut);
        publisher.publish(&full()).await.expect("the next is confirmed");
    }
}
