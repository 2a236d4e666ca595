//! The suite of every transport, in both modes, alone and as a member of a group.

use outbox_core::{
    testing::transport::{Pair, Promises, TransportFixture},
    transport_suite,
};
use outbox_mqtt::{MqttPublisher, MqttSubscriber};
use tests::servers::mosquitto;

async fn pair(
    refine: impl FnOnce(MqttPublisher) -> MqttPublisher,
    configure: impl Fn(MqttSubscriber) -> MqttSubscriber + Send + Sync + 'static,
) -> Pair {
    let server = mosquitto::start().await;
    let url = server.url();
    let publisher = MqttPublisher::new(&url).expect("a URL").topic(|_| "suite/all".to_owned());
    let publisher = refine(publisher).build().expect("configured");
    let subscribe = move || {
        let subscriber = MqttSubscriber::new(&url, "suite").expect("a URL").topic("suite/+");
        configure(subscriber)
    };
    // What is published before anybody has subscribed is refused.
    let mut subscriber = subscribe().build().expect("configured");
    subscriber.connect().await.expect("subscribed");
    Pair::new(publisher, subscriber).subscribing_again(subscribe).keeping(server)
}

mod binary {
    use super::*;

    struct Binary;

    #[async_trait::async_trait]
    impl TransportFixture for Binary {
        fn promises() -> Promises {
            Promises::broker()
        }

        async fn pair() -> Pair {
            pair(|publisher| publisher, |subscriber| subscriber).await
        }
    }

    transport_suite!(Binary);
}

mod structured_in_a_group {
    use super::*;

    struct Structured;

    #[async_trait::async_trait]
    impl TransportFixture for Structured {
        fn promises() -> Promises {
            Promises::broker()
        }

        async fn pair() -> Pair {
            let member =
                |subscriber: MqttSubscriber| subscriber.share("group").acknowledge_out_of_order();
            pair(MqttPublisher::structured, member).await
        }
    }

    transport_suite!(Structured);
}
