//! Reads the controls for a running part: at each renewal, and on wakes.

use super::{ControlStore, Controls};
use crate::{failure::BackgroundWork, outbox::StoreError, runtime::now};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    time::{sleep_until, timeout},
};

/// Shortest and longest pause between two reads on wakes. A wake says that something was committed:
/// under load each read follows one, and finds no change.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// Reads controls, and tells when they have changed.
pub(crate) struct ControlReader {
    store: Arc<dyn ControlStore>,
    known: Option<Controls>,
    pause: Duration,
    read_at: Instant,
    work: BackgroundWork,
}

impl ControlReader {
    pub(crate) fn new(store: Arc<dyn ControlStore>) -> Self {
        let work = BackgroundWork::default();
        Self { store, known: None, pause: PAUSES.0, read_at: now(), work }
    }

    /// Reads the controls, which may take so long; gives them if they have changed since the last
    /// read. A read that fails is logged, and the former controls stay in force.
    ///
    /// The first read that ends with a failure that stays, such as a missing privilege, gives no
    /// controls: what waits for them would wait for ever.
    ///
    /// # Cancel safety
    /// A read that is dropped changes nothing.
    pub(crate) async fn read(&mut self, within: Duration) -> Option<Controls> {
        let read = match timeout(within, self.store.controls()).await {
            Ok(read) => read,
            Err(late) => Err(StoreError::Unavailable(late.into())),
        };
        // Before the outcome: a read that fails at once is not repeated at each wake either.
        let since_last = now().saturating_duration_since(self.read_at);
        self.read_at = now();
        self.pause = next_pause(self.pause, false, since_last);
        let read = match read {
            Ok(controls) => {
                self.work.succeeded("read the controls");
                controls
            }
            Err(error) => {
                self.work.failed("read the controls", &error);
                let stays = error.class() == crate::failure::FailureClass::Permanent;
                if self.known.is_some() || !stays {
                    return None;
                }
                Controls::default()
            }
        };
        let changed = self.known.as_ref().is_none_or(|known| !known.is_same(&read));
        if !changed {
            return None;
        }
        self.pause = PAUSES.0;
        if self.known.is_some() || !read.0.is_empty() {
            tracing::info!(
                controls = read.0.len(),
                "what operators have paused or slowed down has changed"
            );
        }
        self.known = Some(read.clone());
        Some(read)
    }

    /// Tells whether the controls were read once.
    pub(crate) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// Waits until a wake has come and the pause since the last read is over; for ever without a
    /// wake.
    ///
    /// # Cancel safety
    /// A wait that is dropped may lose a wake; the next renewal reads all the same.
    pub(crate) async fn woken(&self, wake: Option<&mut watch::Receiver<u64>>) {
        let Some(wake) = wake else { return std::future::pending().await };
        if wake.changed().await.is_err() {
            return std::future::pending().await;
        }
        sleep_until((self.read_at + self.pause).into()).await;
        wake.mark_unchanged();
    }
}

/// Gives the pause after a read: longer while wakes follow one another and nothing changes.
fn next_pause(pause: Duration, changed: bool, since_last: Duration) -> Duration {
    let (shortest, longest) = PAUSES;
    match changed || since_last > longest * 2 {
        true => shortest,
        false => (pause * 2).min(longest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{ControlAction, ControlScope, OperatorNote};

    /// A store that is down.
    struct Down;

    fn down<T>() -> Result<T, StoreError> {
        Err(StoreError::Unavailable("the server is away".into()))
    }

    #[async_trait::async_trait]
    impl ControlStore for Down {
        async fn controls(&self) -> Result<Controls, StoreError> {
            down()
        }

        async fn set_control(
            &self,
            _: ControlScope,
            _: &str,
            _: ControlAction,
            _: Option<Duration>,
            _: &OperatorNote,
        ) -> Result<(), StoreError> {
            down()
        }

        async fn end_controls(
            &self,
            _: ControlScope,
            _: &str,
            _: &OperatorNote,
        ) -> Result<u64, StoreError> {
            down()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_fails_is_not_repeated_at_each_wake() {
        let (wake, mut wakes) = watch::channel(0);
        let mut reader = ControlReader::new(Arc::new(Down));
        let begun = now();
        for n in 0..10 {
            wake.send_replace(n);
            reader.woken(Some(&mut wakes)).await;
            assert_eq!(reader.read(Duration::from_secs(1)).await, None);
        }
        let took = now().duration_since(begun);
        assert!(took >= 7 * PAUSES.1, "ten reads on wakes took {took:?}");
    }

    #[test]
    fn the_pause_grows_while_wakes_bring_nothing() {
        let ms = Duration::from_millis;
        for (pause, changed, since_last, expected) in [
            (ms(200), false, ms(200), ms(400)),
            (ms(800), false, ms(800), ms(1_000)),
            (ms(1_000), false, ms(1_000), ms(1_000)),
            (ms(1_000), true, ms(1_000), ms(200)),
            (ms(1_000), false, ms(2_001), ms(200)),
        ] {
            let next = next_pause(pause, changed, since_last);
            assert_eq!(next, expected, "{pause:?} {changed} {since_last:?}");
        }
    }
}
