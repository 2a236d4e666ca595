//! What follows when the database aborts a run in favour of another transaction, or the connection is
//! lost: the run is disturbed.
//!
//! That speaks neither against the message nor against the database as a whole: the consumer counts no
//! attempt, writes no dead letter, and goes on with other keys. It runs the handler again after pauses
//! that grow. Only a connection that is lost twice in a row, each time after a transaction could begin,
//! counts as a failed attempt: a statement of the handler may end it each time.

use super::{
    Worker,
    reports::{Failing, FailureKind},
};
use crate::{
    event::Message,
    failure::{FailureClass, full_text, loggable_text},
    outbox::{ConsumerStore, StoreError},
    runtime::now,
};
use std::time::{Duration, Instant};

/// First pause: about as long as a deadlock takes to clear.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(5);
/// For so long at least a delivery stays unacknowledged before it is stored: most disturbances are over
/// by then.
const MIN_UNACKED: Duration = Duration::from_secs(2);
/// Losses of the connection in a row, with a beginning between them, that count as a failed attempt.
const LOSSES: u32 = 2;

/// Disturbances of one delivery at one handler, in a row.
pub(super) struct Disturbances {
    count: u32,
    losses: u32,
    since: Instant,
}

/// What follows a disturbance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// The handler runs again after this pause; the delivery stays unacknowledged.
    RetryInline(Duration),
    /// The delivery is stored, to run after this pause.
    Defer(Duration),
    /// The run counts as a failed attempt.
    Failed,
}

impl Disturbances {
    pub(super) fn new(since: Instant) -> Self {
        Self { count: 0, losses: 0, since }
    }

    /// Notes that a run was not disturbed.
    pub(super) fn clear(&mut self) {
        (self.count, self.losses) = (0, 0);
    }

    /// Says what follows one more: pure but for the clock.
    pub(super) fn next(
        &mut self,
        class: FailureClass,
        max_unacked: Duration,
        at: Instant,
    ) -> Again {
        self.count = self.count.saturating_add(1);
        self.losses = if class == FailureClass::Unavailable { self.losses + 1 } else { 0 };
        if self.losses >= LOSSES {
            return Again::Failed;
        }
        let pause = FIRST.saturating_mul(1 << self.count.saturating_sub(1).min(10)).min(LONGEST);
        if at.saturating_duration_since(self.since) + pause < max_unacked.max(MIN_UNACKED) {
            Again::RetryInline(pause)
        } else {
            Again::Defer(pause)
        }
    }
}

impl<S: ConsumerStore> Worker<S> {
    /// Says what follows a disturbance, and logs it.
    pub(super) fn disturbed(
        &self,
        handler: &str,
        message: &Message,
        disturbances: &mut Disturbances,
        max_unacked: Duration,
        error: &StoreError,
    ) -> Again {
        let again = disturbances.next(error.class(), max_unacked, now());
        self.count(|s| s.disturbed += 1);
        let (class, error) = (error.class(), full_text(error));
        self.report(Failing {
            kind: FailureKind::Disturbed,
            handler,
            message: Some(message),
            attempt: 0,
            error: &error,
        });
        if again == Again::Failed {
            tracing::warn!(
                consumer = &*self.consumer,
                handler,
                message_id = %message.id,
                times = disturbances.count,
                error = loggable_text(&error, class, Some(message)),
                "a run lost its connection to the database again, though a transaction could begin between: it counts as a \
                 failed attempt, since a statement of the handler may end the connection"
            );
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass::{Transient, Unavailable};

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_grow_and_a_delivery_that_would_stay_unacknowledged_too_long_is_stored() {
        let begun = now();
        let mut disturbances = Disturbances::new(begun);
        let pauses = (0..9).map(|_| disturbances.next(Transient, 10 * SECOND, begun));
        let expected =
            [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000].map(|ms| Again::RetryInline(ms * MS));
        assert_eq!(pauses.collect::<Vec<_>>(), expected);
        for (max_unacked, elapsed, expected) in [
            (10 * SECOND, 9 * SECOND, Again::RetryInline(50 * MS)),
            (10 * SECOND, 10 * SECOND, Again::Defer(50 * MS)),
            (Duration::ZERO, SECOND, Again::RetryInline(50 * MS)),
            (Duration::ZERO, 2 * SECOND, Again::Defer(50 * MS)),
        ] {
            assert_eq!(
                Disturbances::new(begun).next(Transient, max_unacked, begun + elapsed),
                expected,
                "{max_unacked:?} {elapsed:?}"
            );
        }
    }

    #[test]
    fn a_connection_that_is_lost_once_is_no_database_that_is_down() {
        let begun = now();
        let mut disturbances = Disturbances::new(begun);
        let mut next = |class| disturbances.next(class, 10 * SECOND, begun);
        assert_eq!(next(Unavailable), Again::RetryInline(50 * MS));
        assert_eq!(next(Transient), Again::RetryInline(100 * MS));
        assert_eq!(next(Unavailable), Again::RetryInline(200 * MS));
        assert_eq!(next(Unavailable), Again::Failed, "twice in a row");
        disturbances.clear();
        assert_eq!(disturbances.next(Unavailable, SECOND, begun), Again::RetryInline(50 * MS));
    }
}
