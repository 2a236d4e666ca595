//! Faults of payments, one after the other, while orders come in and the coordinator of their sagas
//! crashes.

use super::{Customers, Shop, until};
use crate::orders;
use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How long the relay may take to notice a fault, or its end.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every request gets an error.
    Refuses,
    /// Requests are accepted and never answered.
    Silent,
    /// Requests are handled and their answers lost: the worst one, since the sender has to repeat them.
    AnswerLost,
    /// The port is closed.
    Vanished,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Refuses, Self::Silent, Self::AnswerLost, Self::Vanished];

    /// Describes the service while the fault is on.
    const fn words(self) -> &'static str {
        match self {
            Self::Refuses => "refuses whatever comes",
            Self::Silent => "accepts and never answers",
            Self::AnswerLost => "works, its answers get lost",
            Self::Vanished => "is gone, connections refused",
        }
    }
}

/// The fault that is on, shared with the server that has it, and how many requests that server has
/// handled without an answer.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    on: Arc<watch::Sender<Option<Fault>>>,
    unconfirmed: Arc<watch::Sender<u64>>,
}

impl Faults {
    /// Puts the fault between the network and an application.
    pub fn around(&self, app: Router) -> Router {
        app.layer(from_fn_with_state(self.clone(), strike))
    }

    /// Shows the fault that is on to the proxy of a broker.
    #[cfg(feature = "amqp")]
    pub fn watch(&self) -> watch::Receiver<Option<Fault>> {
        self.on.subscribe()
    }

    /// Puts the fault between a publisher and its broker.
    #[cfg(any(
        feature = "kafka",
        feature = "mqtt",
        feature = "nats",
        feature = "redis",
        feature = "sqs"
    ))]
    pub fn before<P>(
        &self,
        to: P,
        timeout: Duration,
    ) -> super::faulty_publisher::FaultyPublisher<P> {
        super::faulty_publisher::FaultyPublisher::new(to, self.clone(), timeout)
    }

    /// Gives the fault that is on.
    #[cfg(any(
        feature = "kafka",
        feature = "mqtt",
        feature = "nats",
        feature = "redis",
        feature = "sqs"
    ))]
    pub fn now(&self) -> Option<Fault> {
        *self.on.borrow()
    }

    /// Counts requests that were handled and never answered.
    pub fn count_unconfirmed(&self, done: u64) {
        self.unconfirmed.send_modify(|unconfirmed| *unconfirmed += done);
    }

    pub(super) fn set(&self, fault: Option<Fault>) {
        self.on.send_replace(fault);
    }
}

async fn strike(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    let fault = *faults.on.borrow();
    match fault {
        None | Some(Fault::Vanished) => next.run(request).await,
        Some(Fault::Refuses) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Some(Fault::Silent) => pending().await,
        Some(Fault::AnswerLost) => {
            // On a task of its own: the work continues when the sender has given up.
            let answer = tokio::spawn(next.run(request)).await;
            faults.count_unconfirmed(u64::from(
                answer.is_ok_and(|answer| answer.status().is_success()),
            ));
            pending().await
        }
    }
}

/// Places orders under each fault in turn, then the rest while all is well.
pub async fn storm(shop: &mut Shop, customers: &Customers, orders: u32) -> anyhow::Result<()> {
    let who = shop.link.wire.fails();
    let ways = Fault::ALL.len();
    println!(
        "\n{orders} orders, while {who} fails in {ways} ways, and orders dies in the middle of its sagas each time:\n"
    );
    let begun = Instant::now();
    let (share, mut placed) = (orders / 5, 0);
    for fault in Fault::ALL {
        shop.faults.set(Some(fault));
        if fault == Fault::Vanished {
            shop.payments.server.close().await?;
        }
        print_line(begun, &format!("{who} {}", fault.words()));
        let failures = shop.orders.failed.clone();
        let failed = || *failures.borrow();
        let before = failed();
        // A failed publish may date from the fault before: then this fault has lost no answer yet.
        let (unconfirmed, counted) =
            (shop.faults.unconfirmed.subscribe(), shop.broker_proxy.is_none());
        let met = || fault != Fault::AnswerLost || !counted || *unconfirmed.borrow() > 0;
        customers.place(placed..placed + share / 2).await?;
        let release = shop.release;
        shop.orders.crash(async |outbox| orders::start_sagas(outbox, release).await).await?;
        customers.place(placed + share / 2..placed + share).await?;
        placed += share;
        until(NOTICED_WITHIN, "the relay meets the fault", async || Ok(failed() > before && met()))
            .await?;
        let failed = failed() - before;

        shop.faults.set(None);
        shop.payments.server.open()?;
        print_line(
            begun,
            &format!(
                "  all is well again; orders placed meanwhile {share}, publishes failed {failed}"
            ),
        );
        let sent = || *shop.orders.sent.borrow();
        let delivered = sent().delivered;
        until(NOTICED_WITHIN, "the relay recovers", async || {
            Ok(sent().open_breakers == 0 && sent().delivered > delivered)
        })
        .await?;
    }
    print_line(begun, &format!("the last {} orders come in undisturbed", orders - placed));
    customers.place(placed..orders).await
}

fn print_line(begun: Instant, words: &str) {
    println!("{:>6.1} s  {words}", begun.elapsed().as_secs_f64());
}
