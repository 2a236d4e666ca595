//! The actor that reads a subscriber.

use crate::{
    failure::{FailureReports, Report, backoff, full_text},
    runtime::{MailboxSender, Shutdown, now},
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

/// How long closing the subscriptions may take where no time of the shutdown is left.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// A message of a reader to the dispatcher.
pub(in crate::consumer) enum Incoming {
    Delivery(Delivery),
    /// A subscriber is closed; `open` has been counted down.
    Closed,
}

/// Reads one subscriber, one delivery ahead of the dispatcher at most.
#[derive(Clone)]
pub(in crate::consumer) struct Reader {
    /// Shared between restarts of the actor, so that a subscriber survives a panic of its own.
    subscriber: Arc<Mutex<Box<dyn Subscriber>>>,
    dispatcher: MailboxSender<Incoming>,
    open: Arc<AtomicUsize>,
    shutdown: Shutdown,
    consumer: Arc<str>,
}

impl Reader {
    pub(in crate::consumer) fn new(
        subscriber: Arc<Mutex<Box<dyn Subscriber>>>,
        dispatcher: MailboxSender<Incoming>,
        open: Arc<AtomicUsize>,
        shutdown: Shutdown,
        consumer: Arc<str>,
    ) -> Self {
        Self { subscriber, dispatcher, open, shutdown, consumer }
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
                // A permit first: a delivery that is received is always passed on.
                let permit = self.dispatcher.reserve().await;
                (permit, subscriber.next().await)
            };
            let (permit, next) = tokio::select! {
                biased;
                () = self.shutdown.requested() => return Ok(()),
                next = next => next,
            };
            // The dispatcher has ended.
            let Ok(permit) = permit else { return Ok(()) };
            match next {
                Ok(Some(mut delivery)) => {
                    failures = 0;
                    delivery.system = subscriber.system();
                    if let Some(Report::Recovered { failures, after }) = reports.succeeded(now()) {
                        tracing::info!(
                            consumer = &*self.consumer,
                            failures,
                            ?after,
                            "a subscription delivers again"
                        );
                    }
                    permit.send(Incoming::Delivery(delivery));
                }
                Ok(None) => {
                    self.open.fetch_sub(1, Ordering::AcqRel);
                    permit.send(Incoming::Closed);
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
                    "a subscription keeps failing; retrying"
                );
            }
            Some(_) => {
                tracing::warn!(consumer, error, "a subscription has failed; retrying")
            }
            None => tracing::debug!(consumer, error, "a subscription has failed again"),
        }
    }
}

/// Closes all subscriptions at once, until the shutdown's time is up, and for [`CLOSE_GRACE`] in any case:
/// one after the other, they would wait for a broker that is unreachable.
pub(in crate::consumer) async fn close_all(
    subscribers: Vec<Arc<Mutex<Box<dyn Subscriber>>>>,
    shutdown: &Shutdown,
) {
    let closing = join_all(
        subscribers.iter().map(|subscriber| async { subscriber.lock().await.close().await }),
    );
    tokio::select! {
        biased;
        _ = closing => {}
        _ = join(shutdown.expired(), sleep(CLOSE_GRACE)) => {
            tracing::warn!("closing subscriptions timed out; brokers will notice by heartbeat");
        }
    }
}
