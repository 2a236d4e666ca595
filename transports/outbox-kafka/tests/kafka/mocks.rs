//! Errors that no healthy broker gives, injected by librdkafka's own mock of one.

use crate::support::{SOON, failure, full, name};
use outbox_core::{
    failure::FailureClass::{Permanent, Transient, Unavailable},
    transport::Publisher,
};
use outbox_kafka::KafkaPublisher;
use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use std::time::Duration;

fn mock() -> (MockCluster<'static, DefaultProducerContext>, KafkaPublisher) {
    let mock = MockCluster::new(1).expect("a mock");
    let topic = name("mock");
    mock.create_topic(&topic, 1, 1).expect("a topic");
    let publisher = KafkaPublisher::new(mock.bootstrap_servers()).expect("brokers").topic(topic);
    (mock, publisher.timeout(Duration::from_secs(3)))
}

#[tokio::test]
async fn what_a_broker_says_of_a_record_has_its_class() {
    for (error, class) in [
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, Permanent),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD, Permanent),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, Unavailable),
    ] {
        let (mock, publisher) = mock();
        publisher.publish(&full()).await.expect("confirmed");
        mock.request_errors(RDKafkaApiKey::Produce, &[error; 8]);
        let refused = failure(&publisher).await;
        assert_eq!(refused.class(), class, "{error:?}: {refused}");
        mock.clear_request_errors(RDKafkaApiKey::Produce);
        // The client may have asked once more before, and be answered late.
        let again = async { while publisher.publish(&full()).await.is_err() {} };
        tokio::time::timeout(SOON, again).await.expect("confirmed again");
    }
}

#[tokio::test]
async fn replicas_that_are_missing_for_a_while_are_waited_for_and_then_the_message_may_go_later() {
    let (mock, publisher) = mock();
    publisher.publish(&full()).await.expect("confirmed");
    let few = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 2];
    mock.request_errors(RDKafkaApiKey::Produce, &few);
    publisher.publish(&full()).await.expect("it was sent again");
    mock.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 1_000],
    );
    let refused = failure(&publisher).await;
    assert_eq!(refused.class(), Transient, "{refused}");
}

#[tokio::test]
async fn a_producer_that_has_lost_its_place_for_good_is_replaced() {
    let (mock, publisher) = mock();
    publisher.publish(&full()).await.expect("confirmed");
    // The broker remembers another sequence than ours, which librdkafka calls fatal: that client
    // sends nothing any more.
    mock.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER],
    );
    let refused = publisher.publish(&full()).await.expect_err("its place is lost");
    assert_eq!(refused.class(), Unavailable, "{refused}");
    publisher.publish(&full()).await.expect("confirmed to a new client");
}

#[tokio::test]
async fn what_a_client_recovers_from_is_never_the_end_of_a_message() {
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
    ] {
        let (mock, publisher) = mock();
        publisher.publish(&full()).await.expect("confirmed");
        mock.request_errors(RDKafkaApiKey::Produce, &[error]);
        let again = async {
            while let Err(refused) = publisher.publish(&full()).await {
                assert_ne!(refused.class(), Permanent, "{error:?}: {refused}");
            }
        };
        tokio::time::timeout(SOON, again).await.expect("confirmed again");
    }
}
