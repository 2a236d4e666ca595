//! The suite of every transport, in both modes.

use outbox_core::{
    testing::transport::{Pair, Promises, TransportFixture},
    transport_suite,
};
use outbox_nats::{DurableConsumer, NatsPublisher, NatsSubscriber, Stream};
use std::time::Duration;
use tests::servers::nats;

/// The server takes 1 MiB of payload and headers together.
const MAX_PAYLOAD: usize = 960 * 1024;

async fn pair(stream: Stream, refine: impl FnOnce(NatsPublisher) -> NatsPublisher) -> Pair {
    let server = nats::start().await;
    let (url, stream) = (server.url(), stream.subject("suite.*"));
    // The suite's topics are in every script.
    let publisher = NatsPublisher::new(&url).expect("a URL").subject(|_| "suite.all".to_owned());
    let publisher = refine(publisher.declare([stream.clone()])).build().expect("configured");
    let subscribe = move || {
        let consumer = DurableConsumer::new().ack_wait(Duration::from_secs(5));
        let subscriber = NatsSubscriber::new(&url, "SUITE", "suite").expect("a URL");
        subscriber.declare([stream.clone()]).declare_consumer(consumer)
    };
    let subscriber = subscribe().build().expect("configured");
    Pair::new(publisher, subscriber).subscribing_again(subscribe).keeping(server)
}

mod binary {
    use super::*;

    struct Binary;

    #[async_trait::async_trait]
    impl TransportFixture for Binary {
        fn promises() -> Promises {
            Promises::broker().counts_attempts(true).max_payload(MAX_PAYLOAD)
        }

        async fn pair() -> Pair {
            pair(Stream::new("SUITE"), |publisher| publisher).await
        }
    }

    transport_suite!(Binary);
}

mod structured_in_a_work_queue_in_memory {
    use super::*;

    struct Structured;

    #[async_trait::async_trait]
    impl TransportFixture for Structured {
        fn promises() -> Promises {
            // Bytes that are no JSON take a third more.
            Promises::broker().counts_attempts(true).max_payload(MAX_PAYLOAD / 4 * 3)
        }

        async fn pair() -> Pair {
            let queue = Stream::new("SUITE").work_queue().in_memory();
            pair(queue, NatsPublisher::structured).await
        }
    }

    transport_suite!(Structured);
}
