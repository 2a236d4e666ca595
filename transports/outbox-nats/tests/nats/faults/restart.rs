//! The suite's cases in which the server is stopped.

use outbox_core::{
    testing::transport::{Pair, Restart, RestartFixture},
    transport_suite,
};
use outbox_nats::{DurableConsumer, NatsPublisher, NatsSubscriber, Stream};
use std::time::Duration;
use tests::servers::{Server, nats};

struct Private;

struct Restartable(Server);

#[async_trait::async_trait]
impl Restart for Restartable {
    async fn stop(&mut self) {
        self.0.stop().await;
    }

    async fn start(&mut self) {
        self.0.start().await;
    }
}

#[async_trait::async_trait]
impl RestartFixture for Private {
    async fn private() -> (Pair, Box<dyn Restart>) {
        let server = nats::start().await;
        let streams = || [Stream::new("SUITE").subject("orders")];
        let publisher = NatsPublisher::new(server.url()).expect("a URL").declare(streams());
        let consumer = DurableConsumer::new().ack_wait(Duration::from_secs(60));
        let subscriber = NatsSubscriber::new(server.url(), "SUITE", "suite")
            .expect("a URL")
            .declare(streams())
            .declare_consumer(consumer);
        (Pair::new(publisher, subscriber), Box::new(Restartable(server)))
    }
}

transport_suite!(Private, restarts);
