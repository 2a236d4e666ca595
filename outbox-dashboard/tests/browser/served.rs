//! The page over the databases of a test.

use crate::service::Service;
use outbox_dashboard::{Access, Colour, Dashboard, DashboardBuilder};
use std::net::SocketAddr;
use tokio::{net::TcpListener, task::JoinHandle};

/// A page on a free port. Dropped, it ends.
pub(crate) struct Served {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Begins a page over services.
pub(crate) fn over<'a>(
    services: impl IntoIterator<Item = (&'a str, &'a Service)>,
) -> DashboardBuilder {
    let builder = Dashboard::builder().environment("staging", Colour::Amber);
    services
        .into_iter()
        .fold(builder, |builder, (name, service)| builder.database(name, service.outbox.clone()))
}

impl Served {
    /// Serves a page at the root of a free port.
    pub(crate) async fn start(builder: DashboardBuilder) -> Self {
        let dashboard = builder.build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { dashboard.serve(listener).await.unwrap() });
        Self { address, task }
    }

    /// Serves it to whom the access lets in.
    pub(crate) async fn to(builder: DashboardBuilder, access: Access) -> Self {
        Self::start(builder.access(access)).await
    }

    /// Gives the address of a page.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Gives the address of a page by a name that the browser does not take for this machine's.
    pub(crate) fn url_by_name(&self, path: &str) -> String {
        format!("http://outbox.test:{}{path}", self.address.port())
    }

    /// Gives the address of a page, with the login that the browser sends.
    pub(crate) fn url_as(&self, who: &str, password: &str, path: &str) -> String {
        format!("http://{who}:{password}@{}{path}", self.address)
    }
}
