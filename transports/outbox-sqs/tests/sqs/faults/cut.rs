//! The suite's cases in which the connection is lost. The service goes on, as Amazon's does: an
//! emulator that is stopped has forgotten everything.

use crate::support::{FIFO, publisher_at, start, subscriber_at};
use outbox_core::{
    testing::transport::{Pair, Restart, RestartFixture},
    transport_suite,
};
use std::sync::Arc;
use tests::{Proxy, servers::Server};

struct Behind;

/// A way to the service that is cut and mended.
struct Way(Arc<Proxy>);

#[async_trait::async_trait]
impl Restart for Way {
    async fn stop(&mut self) {
        self.0.cut();
    }

    async fn start(&mut self) {
        self.0.come_back();
    }
}

#[async_trait::async_trait]
impl RestartFixture for Behind {
    async fn private() -> (Pair, Box<dyn Restart>) {
        let server: Server = start().await;
        let proxy = Arc::new(Proxy::before(&server.url()).await);
        let url = proxy.url(&server.url());
        let pair = Pair::new(publisher_at(&url, FIFO), subscriber_at(&url, FIFO));
        (pair.keeping((server, proxy.clone())), Box::new(Way(proxy)))
    }
}

transport_suite!(Behind, restarts);
