//! The actor that reads a subscriber.

use super::backoff;
use crate::{
    failure::{FailureReports, Report, full_text},
    runtime::{Address, Shutdown, now},
    transport::{Delivery, Subscriber},
};
use futures_util::future::{join, join_all};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Mutex, time::sleep};

/// How long a goodbye may take that begins at the end of a shutdown's time.
const GOODBYE: Duration = Duration::from_secs(1);

/// What readers send to the core.
pub(in crate::consumer) enum Arrival {
    Delivery(Delivery),
    /// A subscriber is closed; `open` has been counted down.
    Closed,
}

/// Reads one subscriber, one delivery ahead of the core at most.
#[derive(Clone)]
pub(in crate::consumer) struct Reader {
    /// Shared between the lives of the actor, so that a subscriber survives a panic of its own.
    subscriber: Arc<Mutex<Box<dyn Subscriber>>>,
    core: Address<Arrival>,
    open: Arc<AtomicUsize>,
    shutdown: Shutdown,
    consumer: Arc<str>,
}

impl Reader {
    pub(in crate::consumer) fn new(
        subscriber: Arc<Mutex<Box<dyn Subscriber>>>,
        core: Address<Arrival>,
        open: Arc<AtomicUsize>,
        shutdown: Shutdown,
        consumer: Arc<str>,
    ) -> Self {
        Self { subscriber, core, open, shutdown, consumer }
    }

    pub(in crate::consumer) async fn run(self) -> Result<(), Infallible> {
        let mut subscriber = self.subscriber.lock().await;
        let (mut failures, mut reports) = (0, FailureReports::default());
        loop {
            let wait = (failures > 0).then(|| backoff(failures));
            let next = async {
                if let Some(wait) = wait {
                    sleep(wait).await;
                }
                // Room first, so that no delivery is taken that nobody would hold.
                let room = self.core.room().await;
                (room, subscriber.next().await)
            };
            let (room, next) = tokio::select! {
                biased;
                () = self.shutdown.requested() => return Ok(()),
                next = next => next,
            };
            // Without the core there is nobody to read for.
            let Ok(room) = room else { return Ok(()) };
            match next {
                Ok(Some(delivery)) => {
                    failures = 0;
                    if let Some(Report::Recovered { failures, after }) = reports.succeeded(now()) {
                        tracing::info!(
                            consumer = &*self.consumer,
                            failures,
                            ?after,
                            "a subscription delivers again"
                        );
                    }
                    room.send(Arrival::Delivery(delivery));
                }
                Ok(None) => {
                    self.open.fetch_sub(1, Ordering::AcqRel);
                    room.send(Arrival::Closed);
                    return Ok(());
                }
                Err(error) => {
                    failures += 1;
                    self.report(reports.failed(now()), &full_text(&error));
                }
            }
        }
    }
}

impl Reader {
    fn report(&self, report: Option<Report>, error: &str) {
        let consumer = &*self.consumer;
        match report {
            Some(Report::Repeated { failures, within }) => {
                tracing::warn!(
                    consumer,
                    failures,
                    ?within,
                    error,
                    "a subscription goes on failing, and is tried again"
                );
            }
            Some(_) => {
                tracing::warn!(consumer, error, "a subscription has failed, and is tried again")
            }
            None => tracing::debug!(consumer, error, "a subscription has failed again"),
        }
    }
}

/// Says goodbye to all brokers at once, until a shutdown's time is up, and for a moment in any case: where one is away, the others
/// would wait for it.
pub(in crate::consumer) async fn leave(
    subscribers: Vec<Arc<Mutex<Box<dyn Subscriber>>>>,
    shutdown: &Shutdown,
) {
    let goodbyes = join_all(
        subscribers.iter().map(|subscriber| async { subscriber.lock().await.leave().await }),
    );
    tokio::select! {
        biased;
        _ = goodbyes => {}
        _ = join(shutdown.expired(), sleep(GOODBYE)) => {
            tracing::warn!("not every broker could be told goodbye in time; they will miss this consumer");
        }
    }
}
