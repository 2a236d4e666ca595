//! What goes wrong at payments, one thing after the other, while orders come in and what carries their sagas dies.

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

/// How long a fault may take to be noticed, and its end to be noticed.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every request is refused.
    Refuses,
    /// Requests are accepted and never answered.
    Silent,
    /// Requests are handled, and the answer never arrives: the worst one, for the sender has to send again.
    AnswerLost,
    /// Nobody listens.
    Vanished,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Refuses, Self::Silent, Self::AnswerLost, Self::Vanished];

    /// Says what is wrong with whoever suffers it.
    const fn words(self) -> &'static str {
        match self {
            Self::Refuses => "refuses whatever comes",
            Self::Silent => "accepts and never answers",
            Self::AnswerLost => "works, its answers get lost",
            Self::Vanished => "is gone, connections refused",
        }
    }
}

/// The fault that is on, shared with the server that suffers it, and what that server has done without anybody being told.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    on: Arc<watch::Sender<Option<Fault>>>,
    untold: Arc<watch::Sender<u64>>,
}

impl Faults {
    /// Puts the fault between the network and an application.
    pub fn around(&self, app: Router) -> Router {
        app.layer(from_fn_with_state(self.clone(), strike))
    }

    /// Shows the fault that is on, to a broker that is to suffer it.
    #[cfg(feature = "amqp")]
    pub fn watch(&self) -> watch::Receiver<Option<Fault>> {
        self.on.subscribe()
    }

    /// Puts the fault between a publisher and its broker.
    #[cfg(feature = "kafka")]
    pub fn before<P>(&self, to: P, timeout: Duration) -> super::disturbed::Disturbed<P> {
        super::disturbed::Disturbed::new(to, self.clone(), timeout)
    }

    /// Tells which fault is on.
    #[cfg(feature = "kafka")]
    pub fn now(&self) -> Option<Fault> {
        *self.on.borrow()
    }

    /// Counts what was done without anybody being told.
    pub fn count_untold(&self, done: u64) {
        self.untold.send_modify(|untold| *untold += done);
    }

    fn set(&self, fault: Option<Fault>) {
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
            // On a task of its own: the work goes on when the sender has given up.
            let answer = tokio::spawn(next.run(request)).await;
            faults.count_untold(u64::from(answer.is_ok_and(|answer| answer.status().is_success())));
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
        tell(begun, &format!("{who} {}", fault.words()));
        let failures = shop.orders.failed.clone();
        let failed = || *failures.borrow();
        let before = failed();
        // A publish that fails may have been made under the fault before: then nothing was lost of this one yet.
        let (untold, counted) = (shop.faults.untold.subscribe(), shop.way.is_none());
        let met = || fault != Fault::AnswerLost || !counted || *untold.borrow() > 0;
        customers.place(placed..placed + share / 2).await?;
        let release = shop.release;
        shop.orders.crash(async |outbox| orders::carry(outbox, release).await).await?;
        customers.place(placed + share / 2..placed + share).await?;
        placed += share;
        until(NOTICED_WITHIN, "the relay meets the fault", async || Ok(failed() > before && met()))
            .await?;
        let failed = failed() - before;

        shop.faults.set(None);
        shop.payments.server.open()?;
        tell(
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
    tell(begun, &format!("the last {} orders come in undisturbed", orders - placed));
    customers.place(placed..orders).await
}

fn tell(begun: Instant, words: &str) {
    println!("{:>6.1} s  {words}", begun.elapsed().as_secs_f64());
}
