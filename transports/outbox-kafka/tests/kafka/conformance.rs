//! The suite of every transport, in both modes and both ways of sharing a topic.

use crate::support::{name, publisher, subscriber};
use outbox_core::{
    testing::transport::{Pair, Promises, TransportFixture},
    transport_suite,
};
use outbox_kafka::{KafkaPublisher, KafkaSubscriber};

/// Partitions of each test's topic.
const PARTITIONS: u16 = 3;

/// A record has to fit into what the broker takes, key and headers included.
fn promises() -> Promises {
    Promises::broker().max_payload(1_000_000)
}

fn pair(
    publish: fn(KafkaPublisher) -> KafkaPublisher,
    subscribe: fn(KafkaSubscriber) -> KafkaSubscriber,
) -> Pair {
    let topic = name("suite");
    let publisher = publish(publisher(&topic, PARTITIONS)).build().expect("configured");
    let subscribe = move || subscribe(subscriber(&topic, PARTITIONS)).build().expect("configured");
    Pair::new(publisher, subscribe()).subscribing_again(subscribe)
}

mod binary_and_cooperative {
    use super::*;

    struct Binary;

    #[async_trait::async_trait]
    impl TransportFixture for Binary {
        fn promises() -> Promises {
            promises()
        }

        async fn pair() -> Pair {
            pair(|publisher| publisher, |subscriber| subscriber)
        }
    }

    transport_suite!(Binary);
}

mod structured_and_eager {
    use super::*;

    struct Structured;

    #[async_trait::async_trait]
    impl TransportFixture for Structured {
        fn promises() -> Promises {
            // Bytes travel as base64.
            promises().max_payload(700_000)
        }

        async fn pair() -> Pair {
            let eager = |subscriber: KafkaSubscriber| {
                subscriber.set("partition.assignment.strategy", "range,roundrobin")
            };
            pair(KafkaPublisher::structured, eager)
        }
    }

    transport_suite!(Structured);
}
