//! The suite of every transport: queues of both kinds, in both modes, at both emulators.

use crate::support::{FIFO, STANDARD, publisher_at, subscriber_at};
use outbox_core::{
    testing::transport::{Pair, Promises, TransportFixture},
    transport_suite,
};
use outbox_sqs::SqsPublisher;
use tests::servers::{Server, aws};

/// A payload of bytes goes as base64, a third longer.
const LARGEST: usize = 768_000;

fn promises() -> Promises {
    Promises::broker().counts_attempts(true).max_payload(LARGEST)
}

fn pair(server: Server, queue: &'static str, refine: fn(SqsPublisher) -> SqsPublisher) -> Pair {
    let url = server.url();
    let publisher = refine(publisher_at(&url, queue)).build().expect("configured");
    let first = subscriber_at(&url, queue).build().expect("configured");
    let again = move || subscriber_at(&url, queue);
    Pair::new(publisher, first).subscribing_again(again).keeping(server)
}

mod standard {
    use super::*;

    struct Standard;

    #[async_trait::async_trait]
    impl TransportFixture for Standard {
        fn promises() -> Promises {
            promises().order_per_key(false)
        }

        async fn pair() -> Pair {
            pair(aws::start().await, STANDARD, |publisher| publisher)
        }
    }

    transport_suite!(Standard);
}

mod fifo {
    use super::*;

    struct Fifo;

    #[async_trait::async_trait]
    impl TransportFixture for Fifo {
        fn promises() -> Promises {
            promises()
        }

        async fn pair() -> Pair {
            pair(aws::start().await, FIFO, SqsPublisher::binary)
        }
    }

    transport_suite!(Fifo);
}

/// The second opinion.
mod moto {
    use super::*;

    struct Fifo;

    #[async_trait::async_trait]
    impl TransportFixture for Fifo {
        fn promises() -> Promises {
            promises()
        }

        async fn pair() -> Pair {
            pair(aws::start_moto().await, FIFO, |publisher| publisher)
        }
    }

    transport_suite!(Fifo);
}
