//! How far a batch is written: the time for a confirm begins when its message is on the way.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How many messages of a batch are written, and since when the last one is.
#[derive(Debug, Default)]
pub(super) struct Written {
    messages: AtomicUsize,
    last: Mutex<Option<Instant>>,
}

impl Written {
    /// Notes that one more message is written.
    pub(super) fn add(&self, now: Instant) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Gives how many are written.
    pub(super) fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    /// Gives until when to wait instead of a deadline that has come, where a message was written
    /// since it was set: a connection that takes one message after the other is none that takes
    /// nothing, however many are still to be written.
    pub(super) fn later_than(&self, deadline: Instant, timeout: Duration) -> Option<Instant> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|last| last + timeout).filter(|later| *later > deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::runtime::now;

    #[test]
    fn the_deadline_of_a_batch_is_put_off_as_long_as_its_messages_are_being_written() {
        const TIMEOUT: Duration = Duration::from_secs(10);
        let (written, begun) = (Written::default(), Instant::from(now()));
        let deadline = begun + TIMEOUT;
        assert_eq!(written.later_than(deadline, TIMEOUT), None, "the server takes nothing");
        written.add(begun + TIMEOUT / 2);
        let later = written.later_than(deadline, TIMEOUT).expect("it has taken one");
        assert_eq!(later, deadline + TIMEOUT / 2);
        assert_eq!(written.later_than(later, TIMEOUT), None, "and none since");
        written.add(later);
        assert_eq!(written.later_than(later, TIMEOUT), Some(later + TIMEOUT));
        assert_eq!(written.messages(), 2);
    }
}
