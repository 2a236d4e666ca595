//! What operators look at: the page over all databases, beside metrics and health, at an address of
//! its own.

use crate::{orders::PlaceOrder, service::Server, story::Shop};
use outbox_dashboard::{Access, Colour, Dashboard};
use outbox_metrics::MetricsRouter;
use outbox_sea_orm::{OutboxTransaction, saga::SagaData};

/// Serves `/outbox`, `/metrics`, `/live` and `/ready` until it is dropped.
pub fn serve(shop: &Shop) -> anyhow::Result<Server> {
    let mut page = Dashboard::builder()
        .environment("shop", Colour::Green)
        // The walk redrives and pauses: whoever is on this machine may, as no proxy stands before it.
        .access(Access::loopback())
        .saga(<PlaceOrder as SagaData<OutboxTransaction>>::saga().shape());
    let mut metrics = MetricsRouter::new();
    for service in shop.services() {
        page = service.add_trials(page.database(service.name, service.outbox.clone()));
        metrics = metrics.database(service.name, service.outbox.clone());
        metrics = service.health_checks().into_iter().fold(metrics, MetricsRouter::check);
    }
    let app = metrics.build().nest("/outbox", page.build()?.router());
    Ok(Server::start(app)?)
}

/// Says where to look.
pub fn print_address(operations: &Server) {
    let address = operations.address();
    println!(
        "operators look at http://{address}/outbox, their monitoring at http://{address}/metrics"
    );
}
