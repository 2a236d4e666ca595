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

/// The second opinion, a slow one: for a receive of ten among a thousand messages moto takes a third
/// of a second, and it kept two cores busy for minutes over three hundred one by one. So it has the
/// cases with few messages.
mod moto {
    use super::*;
    use std::time::Duration;

    const UNHURRIED: Duration = Duration::from_mins(1);

    struct Fifo;

    #[async_trait::async_trait]
    impl TransportFixture for Fifo {
        fn promises() -> Promises {
            promises()
        }

        async fn pair() -> Pair {
            let server = aws::start_moto().await;
            let url = server.url();
            let publisher = publisher_at(&url, FIFO).timeout(UNHURRIED);
            let again = move || {
                let subscriber = subscriber_at(&url, FIFO).timeout(UNHURRIED);
                subscriber.visibility_timeout(UNHURRIED)
            };
            let first = again().build().expect("configured");
            let publisher = publisher.build().expect("configured");
            Pair::new(publisher, first).subscribing_again(again).keeping(server)
        }
    }

    transport_suite! { @cases Fifo:
        every_attribute_arrives_unchanged
        attributes_that_are_not_set_stay_unset
        payloads_arrive_byte_for_byte
        an_encoded_payload_decodes_on_the_other_side
        a_tombstone_arrives_as_one
        every_legal_header_arrives_unchanged
        a_repeat_is_the_same_message
        the_publisher_says_what_it_takes
        an_acknowledged_message_is_confirmed_and_not_redelivered
        a_nacked_message_fails_or_is_redelivered
        a_dropped_delivery_counts_as_nacked
        a_rejected_message_is_not_delivered_again
        a_batch_has_one_result_each_in_its_order
        a_wait_for_a_delivery_that_is_given_up_loses_nothing
        a_publish_that_is_given_up_disturbs_no_other
        a_subscriber_that_closes_leaves_no_publish_hanging
        unacknowledged_messages_are_delivered_to_the_next_subscriber
    }
}
