//! The suite's cases in which the broker is stopped.

use crate::support::{name, publisher_at, subscriber_at};
use outbox_core::{
    testing::transport::{Pair, Restart, RestartFixture},
    transport_suite,
};
use std::time::Duration;
use tests::servers::{Server, kafka};

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
        let (server, topic) = (kafka::start().await, name("restart"));
        let publisher = publisher_at(&server.url(), &topic, 3).timeout(Duration::from_secs(3));
        let subscriber = subscriber_at(&server.url(), &topic, 3);
        (Pair::new(publisher, subscriber), Box::new(Restartable(server)))
    }

    fn acks_outlive_connections() -> bool {
        true
    }
}

transport_suite!(Private, restarts);
