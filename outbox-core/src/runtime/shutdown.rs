//! A request to stop, with its deadline.

use super::{later, now};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Asks every holder of a clone to stop by a deadline. Cloning is cheap.
///
/// ```
/// # use outbox_core::runtime::Shutdown;
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let shutdown = Shutdown::default();
/// let of_the_task = shutdown.clone();
/// shutdown.request(Duration::from_secs(10));
/// of_the_task.requested().await; // in the task's `select!`
/// assert!(of_the_task.time_left() <= Some(Duration::from_secs(10)));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Shutdown(Arc<watch::Sender<Option<Instant>>>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Shutdown {
    /// Asks to stop within a time from now. Of several requests the earliest deadline counts.
    pub fn request(&self, within: Duration) {
        let end = later(now(), within);
        self.0.send_if_modified(|deadline| {
            let earlier = deadline.is_none_or(|set| end < set);
            if earlier {
                *deadline = Some(end);
            }
            earlier
        });
    }

    /// Tells whether stopping was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Gives the instant until which everything should have stopped; `None` without a request.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        *self.0.borrow()
    }

    /// Gives the time that is left; zero past the deadline, `None` without a request.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline().map(|end| end.saturating_duration_since(now()))
    }

    /// Waits for the request to stop; returns at once when it was made. In a loop, guard the
    /// branch: it stays ready.
    ///
    /// # Cancel safety
    /// Dropping the call changes nothing.
    pub async fn requested(&self) {
        // The sender lives as long as this value: the channel cannot close.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }

    /// Waits until the deadline has passed; without a request it waits for ever. A deadline that
    /// moves is followed.
    ///
    /// # Cancel safety
    /// Dropping the call changes nothing.
    pub async fn expired(&self) {
        let mut changes = self.0.subscribe();
        loop {
            let deadline = *changes.borrow_and_update();
            match deadline {
                None => _ = changes.changed().await,
                Some(end) => tokio::select! {
                    () = tokio::time::sleep_until(end.into()) => return,
                    _ = changes.changed() => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_clone_sees_the_request_and_the_earlier_deadline_counts() {
        let shutdown = Shutdown::default();
        let clone = shutdown.clone();
        assert!(!clone.is_requested());
        assert_eq!(clone.time_left(), None);
        shutdown.request(Duration::from_secs(10));
        clone.requested().await;
        shutdown.request(Duration::from_secs(60));
        assert_eq!(clone.time_left(), Some(Duration::from_secs(10)));
        shutdown.request(Duration::from_secs(1));
        assert_eq!(clone.time_left(), Some(Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_passes_after_the_request_and_follows_it() {
        let shutdown = Shutdown::default();
        let begun = now();
        let waiter = {
            let shutdown = shutdown.clone();
            async move {
                shutdown.expired().await;
                now().duration_since(begun)
            }
        };
        let asker = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            shutdown.request(Duration::from_secs(100));
            tokio::time::sleep(Duration::from_secs(5)).await;
            shutdown.request(Duration::from_secs(2));
        };
        let (waited, ()) = tokio::join!(waiter, asker);
        assert_eq!(waited.as_secs(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_deadline_is_no_overflow() {
        let shutdown = Shutdown::default();
        shutdown.request(Duration::MAX);
        assert!(shutdown.time_left() > Some(Duration::from_hours(24 * 365)));
    }
}
