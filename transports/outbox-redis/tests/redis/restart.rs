//! The suite's cases in which the server is stopped.

use crate::support::{durable, publisher, subscriber};
use outbox_core::{
    testing::transport::{Pair, Restart, RestartFixture},
    transport_suite,
};
use tests::servers::Server;

struct Private;

struct Restartable(Server);

#[async_trait::async_trait]
impl Restart for Restartable {
    /// Kills it: what it has confirmed has to be there all the same.
    async fn stop(&mut self) {
        self.0.kill().await;
    }

    async fn start(&mut self) {
        self.0.start().await;
    }
}

#[async_trait::async_trait]
impl RestartFixture for Private {
    async fn private() -> (Pair, Box<dyn Restart>) {
        let server = durable().await;
        let pair = Pair::new(publisher(&server), subscriber(&server));
        (pair, Box::new(Restartable(server)))
    }
}

transport_suite!(Private, restarts);
