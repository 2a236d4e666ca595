//! The suite's cases in which the server is stopped.

use crate::support::name;
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, Queue, Topology};
use outbox_core::{
    testing::transport::{Pair, Restart, RestartFixture},
    transport_suite,
};
use tests::servers::{Server, rabbitmq};

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
        let server = rabbitmq::start().await;
        let name = name("restart");
        let topology = Topology::new().queue(Queue::quorum(&name));
        let publisher =
            AmqpPublisher::new(server.url()).expect("a URL").queue(&name).declare(topology.clone());
        let subscriber = AmqpSubscriber::new(server.url(), &name).expect("a URL").declare(topology);
        (Pair::new(publisher, subscriber), Box::new(Restartable(server)))
    }
}

transport_suite!(Private, restarts);
