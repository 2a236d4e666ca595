//! What is wrong is said at once, all of it.

use crate::support::{full, start};
use outbox_core::{
    failure::FailureClass,
    transport::{Publisher, Subscriber},
};
use outbox_sqs::{ConfigFault, SnsPublisher, SnsTopic, SqsPublisher, SqsQueue, SqsSubscriber};
use std::time::Duration;

const URL: &str = "sqs+http://127.0.0.1:4566";

fn publisher() -> SqsPublisher {
    SqsPublisher::new(URL).expect("a URL")
}

fn subscriber(queue: &str) -> SqsSubscriber {
    SqsSubscriber::new(URL, queue).expect("a URL")
}

#[test]
fn all_faults_are_reported_at_once() {
    let error = publisher()
        .queue("a.b")
        .declare([SqsQueue::new("q").dead_letters("d.fifo", 0)])
        .timeout(Duration::ZERO)
        .trust("nonsense")
        .build()
        .expect_err("wrong in many ways");
    assert_eq!(error.faults().len(), 5, "{error}");
    for part in [
        "queue `a.b` must have 1 to 80",
        "has to be FIFO as well",
        "1 to 1000 deliveries",
        "timeout must be longer than zero",
        "no PEM certificate",
    ] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let error = subscriber("")
        .dead_letters("no name")
        .prefetch(0)
        .wait_time(Duration::from_secs(21))
        .visibility_timeout(Duration::ZERO)
        .nack_delay(Duration::from_hours(13))
        .build()
        .expect_err("wrong in many ways");
    assert_eq!(error.faults().len(), 6, "{error}");
    for part in
        ["queue `` must", "`no name`", "prefetch", "a second to 20 s", "a second to 12 hours"]
    {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[test]
fn a_topic_has_to_have_an_account_an_arn_or_a_declaration() {
    let topics = || SnsPublisher::new("sns://eu-central-1").expect("a URL");
    let credentials = || SnsPublisher::new("sns://k:s@eu-central-1").expect("a URL");
    let error = topics().topic("orders").build().expect_err("no account");
    assert!(error.faults().contains(&ConfigFault::NoAccount("orders".into())), "{error}");
    assert!(error.to_string().contains("sns://REGION/ACCOUNT"), "{error}");
    let arn = "arn:aws:sns:eu-central-1:123456789012:orders";
    assert!(credentials().topic(arn).build().is_ok());
    assert!(credentials().topic("orders").declare([SnsTopic::new("orders")]).build().is_ok());
}

#[test]
fn a_text_that_is_no_url_of_the_service_is_refused() {
    for wrong in ["", "http://127.0.0.1", "127.0.0.1:4566", "sqs://", "sqs+http://k@h"] {
        let error = SqsPublisher::new(wrong).expect_err("wrong");
        assert_eq!(error.faults(), [ConfigFault::Url], "{wrong}");
        assert!(SqsSubscriber::new(wrong, "q").is_err(), "{wrong}");
        assert!(SnsPublisher::new(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn what_was_not_built_and_is_wrong_publishes_nothing_and_loses_nothing() {
    let wrong = publisher().queue("");
    let checked = wrong.check().expect_err("the relay finds it when it starts");
    assert_eq!(checked.class(), FailureClass::Permanent, "a relay does not start with it");
    let error = wrong.publish(&full()).await.expect_err("wrong");
    assert_eq!(error.class(), FailureClass::Unavailable);
    let mut wrong = subscriber("");
    assert!(wrong.check().is_err(), "the consumer finds it when it starts");
    assert!(wrong.next().await.is_err());
}

#[test]
fn relays_compare_place_and_queue_and_no_secret() {
    let to = || SqsPublisher::new("sqs://key:canary@eu-central-1/123456789012").expect("a URL");
    let at = |publisher: SqsPublisher| publisher.destination().expect("it says where");
    assert_eq!(at(to().queue("orders")), "eu-central-1/123456789012#orders");
    assert_eq!(at(to().prefix("shop-")), "eu-central-1/123456789012#shop-the event's topic");
    assert_ne!(at(to()), at(to().fifo()));
}

#[test]
fn metrics_name_both_services_as_opentelemetry_does() {
    assert_eq!(publisher().system(), "aws_sqs");
    assert_eq!(subscriber("orders").system(), "aws_sqs");
    assert_eq!(SnsPublisher::new(URL).expect("a URL").system(), "aws.sns");
}

#[test]
fn a_consumer_is_told_how_long_a_dead_one_keeps_its_messages() {
    let subscriber = subscriber("orders").visibility_timeout(Duration::from_secs(45));
    assert_eq!(subscriber.redelivers_within(), Duration::from_secs(45));
}

#[test]
fn topics_that_are_no_queues_are_refused_at_enqueue_unless_a_queue_is_named() {
    let rule = |publisher: SqsPublisher| publisher.limits().topics.is_some();
    assert!(rule(publisher()) && rule(publisher().fifo()));
    assert!(!rule(publisher().queue("orders")));
    assert!(!rule(publisher().queue_of(|message| message.topic.replace('.', "-"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_a_url_and_those_of_a_provider_reach_the_service() {
    let server = start().await;
    let with_keys = server.url().replace("sqs+http://", "sqs+http://key:se%2Fcret@");
    let publisher = SqsPublisher::new(with_keys).expect("a URL");
    let publisher = publisher.queue("orders").declare([SqsQueue::new("orders")]);
    publisher.publish(&full()).await.expect("confirmed");
    let provider = aws_sdk_sqs::config::Credentials::new("key", "secret", None, None, "test");
    let publisher = SqsPublisher::new(server.url()).expect("a URL").queue("orders");
    publisher.credentials(provider).publish(&full()).await.expect("confirmed");
}
