//! What is wrong is said at once, all of it.

use crate::{
    fake::{Fake, puback},
    support::{configured, failure, full, lost, publisher, subscriber, users},
};
use outbox_core::{
    failure::FailureClass,
    transport::{Publisher, Subscriber},
};
use outbox_mqtt::{ConfigFault, MqttPublisher, MqttSubscriber};
use std::time::Duration;
use tests::servers::mosquitto;

const LOCAL: &str = "mqtt://127.0.0.1:1883";

#[test]
fn all_faults_are_reported_at_once() {
    let publisher = MqttPublisher::new(LOCAL)
        .expect("a URL")
        .timeout(Duration::ZERO)
        .keep_alive(Duration::from_millis(10))
        .client_id("");
    let error = publisher.build().expect_err("wrong in three ways");
    assert_eq!(error.faults().len(), 3, "{error}");
    let trusting = MqttPublisher::new("mqtts://h").expect("a URL").trust("no certificate");
    let error = trusting.build().expect_err("no certificate");
    assert!(error.to_string().contains("no PEM certificate"), "{error}");
    let subscriber = MqttSubscriber::new(LOCAL, "a\0b")
        .expect("a URL")
        .topic("a/#/b")
        .topic("c")
        .topic("c")
        .share("g/h")
        .dead_letters("dead/+")
        .receive_maximum(0)
        .session_expiry(Duration::ZERO);
    let error = subscriber.build().expect_err("wrong in seven ways");
    assert_eq!(error.faults().len(), 7, "{error}");
    for part in [
        "the client id",
        "the topic `a/#/b` must be a filter of MQTT",
        "the topic `c` is named twice",
        "the group `g/h` must",
        "the topic of dead letters `dead/+` must",
        "the receive maximum must be at least 1",
        "the session expiry must be at least 1 s",
    ] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let nothing = MqttSubscriber::new(LOCAL, "c").expect("a URL").build();
    assert_eq!(nothing.expect_err("no topic").faults(), [ConfigFault::NoTopic]);
}

#[test]
fn a_text_that_is_no_url_of_mqtt_is_refused_with_what_one_looks_like() {
    for wrong in ["", "http://127.0.0.1", "127.0.0.1:1883", "mqtt://", "tcp://h:1883"] {
        let error = MqttPublisher::new(wrong).expect_err("wrong");
        assert_eq!(error.faults(), [ConfigFault::Url], "{wrong}");
        assert!(error.to_string().contains("mqtt://user:password@host:port"), "{error}");
        assert!(MqttSubscriber::new(wrong, "c").is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn what_was_not_built_and_is_wrong_publishes_nothing_and_loses_nothing() {
    let wrong = MqttPublisher::new(LOCAL).expect("a URL").timeout(Duration::ZERO);
    let checked = wrong.check().expect_err("the relay finds it when it starts");
    assert_eq!(checked.class(), FailureClass::Permanent, "a relay does not start with it");
    let error = wrong.publish(&full()).await.expect_err("wrong");
    assert_eq!(error.class(), FailureClass::Unavailable);
    let mut wrong = MqttSubscriber::new(LOCAL, "c").expect("a URL");
    assert!(wrong.check().is_err(), "the consumer finds it when it starts");
    assert!(wrong.next().await.is_err());
}

#[tokio::test]
async fn a_server_that_is_there_is_connected_to_and_says_what_it_takes() {
    let (server, _folder) = configured("max_packet_size 5000").await;
    let publisher = MqttPublisher::connect(server.url()).await.expect("it is there");
    assert_eq!(publisher.limits().max_message, Some(5_000));
    let unconnected = MqttPublisher::new(server.url()).expect("a URL");
    assert_eq!(unconnected.limits().max_message, Some(268_435_455), "the standard's");
    let error = MqttPublisher::connect("mqtt://127.0.0.1:1").await.expect_err("no server listens");
    assert_eq!(error.class(), FailureClass::Unavailable);
}

#[test]
fn relays_compare_the_servers_and_no_secret() {
    let to = |url: &str| MqttPublisher::new(url).expect("a URL").destination();
    assert_eq!(to("mqtts://ann:canary@a.example").as_deref(), Some("a.example:8883"));
    assert_ne!(to(LOCAL), to("mqtt://127.0.0.1:1884"));
}

#[tokio::test]
async fn a_login_is_accepted_and_a_wrong_one_says_what_to_do() {
    let (server, _folder) = users("", &[("ann", "p@ss:word")]).await;
    let url = |login: &str| server.url().replace("mqtt://", &format!("mqtt://{login}"));
    assert!(MqttPublisher::connect(url("ann:p%40ss%3Aword@")).await.is_ok());
    for login in ["ann:other@", "bob:other@", ""] {
        let error = failure(&MqttPublisher::new(url(login)).expect("a URL")).await;
        assert_eq!(error.class(), FailureClass::Unavailable, "{error}");
        assert!(error.has_responded(), "{error:?}");
        assert!(error.to_string().contains("check user and password in the URL"), "{error}");
        assert!(!error.full_text().contains("other"), "{error}");
        let mut subscriber = MqttSubscriber::new(url(login), "c").expect("a URL").topic("a");
        let text = lost(&mut subscriber).await;
        assert!(text.contains("check user and password in the URL"), "{text}");
    }
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_for_both_halves_and_another_topic_goes() {
    let rules = "user ann\ntopic readwrite allowed/#\ntopic read orders\n";
    let (server, _folder) = users(rules, &[("ann", "a")]).await;
    let url = server.url().replace("mqtt://", "mqtt://ann:a@");
    let mut allowed = MqttSubscriber::new(&url, "c").expect("a URL").topic("allowed/#");
    allowed.connect().await.expect("subscribed");
    let publisher = MqttPublisher::new(&url).expect("a URL");
    let error = failure(&publisher).await;
    assert_eq!(error.class(), FailureClass::Unavailable, "{error}");
    assert!(error.has_responded(), "other keys are probed at once: {error:?}");
    assert!(error.to_string().contains("grant the user of the URL to publish to it"), "{error}");
    let publisher = publisher.topic(|_| "allowed/a".to_owned());
    publisher.publish(&full()).await.expect("another topic is allowed");
}

#[tokio::test]
async fn a_server_without_mqtt_5_or_without_qos_1_is_named() {
    for (welcome, part) in [
        (&[0x20, 2, 0, 1][..], "MQTT 5 is needed"),
        (&[0x20, 3, 0, 0x84, 0][..], "MQTT 5 is needed"),
        (&[0x20, 5, 0, 0, 2, 0x24, 0][..], "takes no QoS 1"),
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "no MQTT 5"),
        // Before it has seen a message.
        (&[0xe0, 2, 0x81, 0][..], "malformed packet"),
        (&[0xe0, 2, 0x83, 0][..], "implementation specific error"),
    ] {
        let fake = Fake::start(welcome, |publish| puback(publish, 0)).await;
        let error = failure(&MqttPublisher::new(fake.url()).expect("a URL")).await;
        assert_eq!(error.class(), FailureClass::Unavailable, "{error}");
        assert!(error.to_string().contains(part), "{part}: {error}");
        assert!(!error.to_string().contains("alone"), "no message is the cause: {error}");
    }
}

#[test]
fn a_login_that_mqtt_cannot_carry_is_a_fault_and_is_not_quoted() {
    let long = "x".repeat(65_536);
    for (login, part) in [
        ("can%00ary".to_owned(), "the user of the URL"),
        ("can%0Aary:p".to_owned(), "the user of the URL"),
        (format!("{long}:p"), "the user of the URL"),
        (format!("ann:{long}"), "the password of the URL"),
    ] {
        let publisher = MqttPublisher::new(format!("mqtt://{login}@127.0.0.1")).expect("a URL");
        let error = publisher.build().expect_err("it cannot be sent");
        assert_eq!(error.faults().len(), 1, "{error}");
        let text = error.to_string();
        assert!(text.contains(part) && !text.contains("ary") && text.len() < 300, "{text}");
    }
    assert!(MqttPublisher::new("mqtt://ann:p%00@127.0.0.1").expect("a URL").build().is_ok());
}

#[tokio::test]
async fn two_clients_of_one_id_are_told_of_each_other() {
    let server = mosquitto::start().await;
    let mut first = subscriber(&server);
    first.connect().await.expect("subscribed");
    let mut second = subscriber(&server);
    second.connect().await.expect("subscribed");
    let text = lost(&mut first).await;
    assert!(text.contains("give each one its own"), "{text}");
    publisher(&server).publish(&full()).await.expect("confirmed");
}
