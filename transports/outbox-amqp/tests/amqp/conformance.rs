//! The suite of every transport, in both modes.

use crate::support::{name, queue, url};
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, Queue, Topology};
use outbox_core::{
    testing::transport::{Pair, Promises, TransportFixture},
    transport_suite,
};

fn pair(queue: Queue, name: &str, refine: impl FnOnce(AmqpPublisher) -> AmqpPublisher) -> Pair {
    let topology = Topology::new().queue(queue);
    let publisher = AmqpPublisher::new(url()).expect("a URL").queue(name).declare(topology.clone());
    let (name, publisher) = (name.to_owned(), refine(publisher).build().expect("configured"));
    let subscribe =
        move || AmqpSubscriber::new(url(), &name).expect("a URL").declare(topology.clone());
    Pair::new(publisher, subscribe().build().expect("configured")).subscribing_again(subscribe)
}

mod binary {
    use super::*;

    struct Binary;

    #[async_trait::async_trait]
    impl TransportFixture for Binary {
        fn promises() -> Promises {
            Promises::broker().counts_attempts(true)
        }

        async fn pair() -> Pair {
            let name = name("suite");
            pair(queue(&name), &name, |publisher| publisher)
        }
    }

    transport_suite!(Binary);
}

mod structured_and_classic {
    use super::*;
    use std::time::Duration;

    struct Structured;

    #[async_trait::async_trait]
    impl TransportFixture for Structured {
        fn promises() -> Promises {
            Promises::broker()
        }

        async fn pair() -> Pair {
            let name = name("suite");
            let classic = Queue::classic(&name).expires(Duration::from_mins(2));
            pair(classic, &name, AmqpPublisher::structured)
        }
    }

    transport_suite!(Structured);
}
