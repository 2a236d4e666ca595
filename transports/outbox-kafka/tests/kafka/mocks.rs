//! Errors that no healthy broker gives, injected by librdkafka's own mock of one.

use crate::support::{SOON, failure, full, name, next};
use outbox_core::{
    failure::FailureClass::{Permanent, Transient, Unavailable},
    transport::{Publisher, Subscriber},
};
use outbox_kafka::{KafkaPublisher, KafkaSubscriber};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use std::time::Duration;

type Mock = MockCluster<'static, DefaultProducerContext>;

fn mock() -> (Mock, KafkaPublisher) {
    mock_with(&name("mock"))
}

/// A mock with a topic of one partition, and a publisher to it.
fn mock_with(topic: &str) -> (Mock, KafkaPublisher) {
    let mock = MockCluster::new(1).expect("a mock");
    mock.create_topic(topic, 1, 1).expect("a topic");
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

/// What brokers reply to a commit while a generation of the group ends and the next one begins.
const REBALANCES: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS;

/// Publishes a record, and makes the only member of the group that has the topic's name.
async fn member(mock: &Mock, publisher: &KafkaPublisher, topic: &str) -> KafkaSubscriber {
    publisher.publish(&full()).await.expect("confirmed");
    KafkaSubscriber::new(mock.bootstrap_servers(), topic).expect("brokers").topic(topic)
}

/// Asks for the position of the group that has the topic's name.
struct Positions(BaseConsumer, String);

impl Positions {
    fn of(mock: &Mock, topic: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", mock.bootstrap_servers()).set("group.id", topic);
        Self(config.create().expect("a client"), topic.to_owned())
    }

    fn committed(&self) -> Offset {
        let mut partition = TopicPartitionList::new();
        partition.add_partition(&self.1, 0);
        let committed = tokio::task::block_in_place(|| self.0.committed_offsets(partition, SOON));
        let committed = committed.expect("the mock replies");
        committed.find_partition(&self.1, 0).expect("it was asked for").offset()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_whose_commit_was_refused_is_committed_though_no_other_record_is_handled() {
    let topic = name("refused-commit");
    let (mock, publisher) = mock_with(&topic);
    let mut member = member(&mock, &publisher, &topic).await;
    let delivery = next(&mut member).await;
    let positions = Positions::of(&mock, &topic);
    assert_eq!(positions.committed(), Offset::Invalid, "nothing is done");
    mock.request_errors(RDKafkaApiKey::OffsetCommit, &[REBALANCES]);
    delivery.ack().await.expect("accepted");
    let committed = async {
        while positions.committed() != Offset::Offset(1) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, committed).await.expect("it is committed again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_leaves_repeats_its_last_commit_while_the_group_is_in_a_rebalance() {
    let topic = name("last-commit");
    let (mock, publisher) = mock_with(&topic);
    let mut member = member(&mock, &publisher, &topic).await;
    let delivery = next(&mut member).await;
    mock.request_errors(RDKafkaApiKey::OffsetCommit, &[REBALANCES; 4]);
    delivery.ack().await.expect("accepted");
    member.close().await;
    let position = Positions::of(&mock, &topic).committed();
    assert_eq!(position, Offset::Offset(1), "its successor would receive the record again");
}
