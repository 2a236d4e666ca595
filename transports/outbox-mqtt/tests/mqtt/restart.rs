//! The suite's cases in which the server is stopped.

use crate::support::{connected, publisher, subscriber};
use outbox_core::{
    testing::transport::{Pair, Restart, RestartFixture},
    transport_suite,
};
use tests::servers::{Server, mosquitto};

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
        let server = mosquitto::start().await;
        let subscriber = connected(subscriber(&server)).await;
        (Pair::new(publisher(&server), subscriber), Box::new(Restartable(server)))
    }
}

transport_suite!(Private, restarts);
