//! The suite of every transport, in both modes.

use crate::support::{GROUP, STREAM, publisher, subscriber};
use outbox_core::{
    testing::transport::{Pair, Promises, TransportFixture},
    transport_suite,
};
use outbox_redis::{RedisPublisher, RedisSubscriber};
use tests::servers::redis as server;

fn promises() -> Promises {
    Promises::broker().counts_attempts(true)
}

async fn pair(refine: fn(RedisPublisher) -> RedisPublisher) -> Pair {
    let server = server::start().await;
    let publisher = refine(publisher(&server)).build().expect("configured");
    let (first, url) = (subscriber(&server).build().expect("configured"), server.url());
    let again = move || RedisSubscriber::new(&url, GROUP).expect("a URL").stream(STREAM);
    Pair::new(publisher, first).subscribing_again(again).keeping(server)
}

mod binary {
    use super::*;

    struct Binary;

    #[async_trait::async_trait]
    impl TransportFixture for Binary {
        fn promises() -> Promises {
            promises()
        }

        async fn pair() -> Pair {
            pair(|publisher| publisher).await
        }
    }

    transport_suite!(Binary);
}

mod structured {
    use super::*;

    struct Structured;

    #[async_trait::async_trait]
    impl TransportFixture for Structured {
        fn promises() -> Promises {
            promises()
        }

        async fn pair() -> Pair {
            pair(RedisPublisher::structured).await
        }
    }

    transport_suite!(Structured);
}
