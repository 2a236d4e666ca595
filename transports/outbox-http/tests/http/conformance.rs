//! The suite of every transport, in both modes.

use crate::support::{SECRET, serve};
use outbox_core::{
    testing::transport::{Pair, Promises, TransportFixture},
    transport_suite,
};
use outbox_http::{HttpPublisher, HttpReceiver};
use std::time::Duration;

async fn pair(refine: impl FnOnce(HttpPublisher) -> HttpPublisher) -> Pair {
    let receiver = HttpReceiver::builder().verify(SECRET).max_body(2 * 1024 * 1024);
    let (router, subscriber) =
        receiver.respond_within(Duration::from_secs(20)).build().expect("configured");
    let server = serve(router).await;
    let publisher = server.publisher().signed(SECRET).timeout(Duration::from_secs(25));
    Pair::new(refine(publisher), subscriber).keeping(server)
}

mod binary {
    use super::*;

    struct Binary;

    #[async_trait::async_trait]
    impl TransportFixture for Binary {
        fn promises() -> Promises {
            Promises::end_to_end()
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
            Promises::end_to_end()
        }

        async fn pair() -> Pair {
            pair(HttpPublisher::structured).await
        }
    }

    transport_suite!(Structured);
}
