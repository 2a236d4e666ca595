//! What is wrong is said at once, all of it.

use crate::support::{failure, full};
use outbox_core::{
    failure::FailureClass,
    transport::{Publisher, Subscriber},
};
use outbox_nats::{ConfigFault, DurableConsumer, NatsPublisher, NatsSubscriber, Stream};
use std::time::Duration;
use tests::servers::nats;

const LOCAL: &str = "nats://127.0.0.1:4222";

#[test]
fn all_faults_are_reported_at_once() {
    let publisher = NatsPublisher::new(LOCAL)
        .expect("a URL")
        .timeout(Duration::ZERO)
        .credentials("no credentials")
        .trust("no certificate")
        .declare([
            Stream::new("A.B").subject("a"),
            Stream::new("S"),
            Stream::new("S").subject("s"),
        ]);
    let error = publisher.build().expect_err("wrong in many ways");
    assert_eq!(error.faults().len(), 6, "{error}");
    for part in [
        "the timeout must",
        "the credentials cannot be read",
        "no PEM certificate",
        "the stream `A.B` must",
        "it has no subject",
        "`S` is declared twice",
    ] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let subscriber = NatsSubscriber::new(LOCAL, "", "a.b").expect("a URL").prefetch(0);
    let consumer = DurableConsumer::new().max_ack_pending(0);
    let error = subscriber.declare_consumer(consumer).build().expect_err("wrong in four ways");
    assert_eq!(error.faults().len(), 4, "{error}");
}

#[test]
fn a_text_that_is_no_url_of_nats_is_refused() {
    for wrong in ["", "http://127.0.0.1", "127.0.0.1:4222", "nats://"] {
        let error = NatsPublisher::new(wrong).expect_err("wrong");
        assert_eq!(error.faults(), [ConfigFault::Url], "{wrong}");
        assert!(NatsSubscriber::new(wrong, "s", "c").is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn what_was_not_built_and_is_wrong_publishes_nothing_and_loses_nothing() {
    let wrong = NatsPublisher::new(LOCAL).expect("a URL").declare([Stream::new("S")]);
    let checked = wrong.check().expect_err("the relay finds it when it starts");
    assert_eq!(checked.class(), FailureClass::Permanent, "a relay does not start with it");
    let error = wrong.publish(&full()).await.expect_err("wrong");
    assert_eq!(error.class(), FailureClass::Unavailable);
    let mut wrong = NatsSubscriber::new(LOCAL, "s", "c").expect("a URL").prefetch(0);
    assert!(wrong.check().is_err(), "the consumer finds it when it starts");
    assert!(wrong.next().await.is_err());
}

#[tokio::test]
async fn a_server_that_is_there_is_connected_to_and_says_what_it_takes() {
    let (server, _folder) = crate::support::configured("max_payload: 4194304").await;
    let publisher = NatsPublisher::connect(server.url()).await.expect("it is there");
    assert_eq!(publisher.limits().max_message, Some(4 * 1024 * 1024));
    let unconnected = NatsPublisher::new(server.url()).expect("a URL");
    assert_eq!(unconnected.limits().max_message, Some(1024 * 1024), "as servers are shipped");
    let error = NatsPublisher::connect("nats://127.0.0.1:1").await.expect_err("no server listens");
    assert_eq!(error.class(), FailureClass::Unavailable);
}

#[tokio::test]
async fn the_second_of_two_servers_is_connected_to_where_the_first_is_gone() {
    let server = nats::start().await;
    let both = format!("nats://127.0.0.1:1,{}", server.url());
    assert!(NatsPublisher::connect(both).await.is_ok());
}

#[test]
fn relays_compare_the_servers_and_no_secret() {
    let to = |url: &str| NatsPublisher::new(url).expect("a URL").destination();
    assert_eq!(
        to("nats://ann:canary@a.example:4223,tls://b.example").as_deref(),
        Some("a.example:4223,b.example:4222")
    );
    assert_ne!(to(LOCAL), to("nats://127.0.0.1:4223"));
}

#[tokio::test]
async fn a_login_by_password_or_token_is_accepted_and_a_wrong_one_makes_the_server_unavailable() {
    let by_password = nats::start_with(&["--user", "ann", "--pass", "p@ss:word"]).await;
    let by_token = nats::start_with(&["--auth", "t0ken"]).await;
    for (server, right, wrong) in
        [(&by_password, "ann:p%40ss%3Aword@", "ann:other@"), (&by_token, "t0ken@", "other@")]
    {
        let url = |login: &str| server.url().replace("nats://", &format!("nats://{login}"));
        assert!(NatsPublisher::connect(url(right)).await.is_ok(), "{right}");
        for login in [wrong, ""] {
            let error = failure(&NatsPublisher::new(url(login)).expect("a URL")).await;
            assert_eq!(error.class(), FailureClass::Unavailable, "{error}");
            assert!(error.to_string().contains("refuses the login"), "{login}: {error}");
            assert!(!error.full_text().contains("other"), "{error}");
        }
    }
}
