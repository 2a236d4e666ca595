//! The actor that reads a subscriber.

use super::backoff;
use crate::{
    failure::full_text,
    runtime::{Address, Shutdown},
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
}

impl Reader {
    pub(in crate::consumer) fn new(
        subscriber: Arc<Mutex<Box<dyn Subscriber>>>,
        core: Address<Arrival>,
        open: Arc<AtomicUsize>,
        shutdown: Shutdown,
    ) -> Self {
        Self { subscriber, core, open, shutdown }
    }

    pub(in crate::consumer) async fn run(self) -> Result<(), Infallible> {
        let mut subscriber = self.subscriber.lock().await;
        let mut failures = 0;
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
                    room.send(Arrival::Delivery(delivery));
                }
                Ok(None) => {
                    self.open.fetch_sub(1, Ordering::AcqRel);
                    room.send(Arrival::Closed);
                    return Ok(());
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(failures, error = full_text(&error), "a subscription failed; it is tried again");
                }
            }
        }
    }
}

/// Says goodbye to all brokers at once, until a shutdown's time is up, and for a moment in any case: where one is away, the others
/// would wait for it.
pub(in crate::consumer) async fn leave(subscribers: Vec<Arc<Mutex<Box<dyn Subscriber>>>>, shutdown: &Shutdown) {
    let goodbyes = join_all(subscribers.iter().map(|subscriber| async { subscriber.lock().await.leave().await }));
    tokio::select! {
        biased;
        _ = goodbyes => {}
        _ = join(shutdown.expired(), sleep(GOODBYE)) => {
            tracing::warn!("not every broker could be told goodbye in time; they will miss this consumer");
        }
    }
}
