//! What goes into the next batch.

use super::{MAX_BYTES, MAX_TIME, MAX_TIME_OF_ONE_WRITER};
use crate::event::Message;
use std::time::Duration;

/// A delivery that may share its transaction.
#[derive(Debug, Clone)]
pub(in crate::consumer) struct Sharing {
    /// The place of its only handler among the consumer's.
    pub(in crate::consumer) handler: usize,
    pub(in crate::consumer) message: Message,
}

/// What a delivery adds to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::consumer) struct Candidate {
    /// How many deliveries its handler allows in one transaction.
    pub(in crate::consumer) limit: usize,
    /// The median time of its handler.
    pub(in crate::consumer) time: Duration,
    pub(in crate::consumer) bytes: usize,
}

/// Tells whether a delivery with so many handlers may share its transaction. The broker counts `attempt`, if it
/// does: an earlier attempt may have ended its process, and its neighbours would end with it.
pub(in crate::consumer) const fn may_share(handlers: usize, attempt: Option<u32>) -> bool {
    handlers == 1 && matches!(attempt, None | Some(0 | 1))
}

/// The batch that is being filled with what is ready.
#[derive(Debug)]
pub(in crate::consumer) struct BatchPlan {
    deliveries: usize,
    /// The smallest limit of its handlers.
    limit: usize,
    time: Duration,
    max_time: Duration,
    bytes: usize,
}

impl BatchPlan {
    /// Begins with one delivery, which may be of any size.
    pub(in crate::consumer) const fn of(first: Candidate, has_one_writer: bool) -> Self {
        let max_time = if has_one_writer { MAX_TIME_OF_ONE_WRITER } else { MAX_TIME };
        Self { deliveries: 1, limit: first.limit, time: first.time, max_time, bytes: first.bytes }
    }

    /// Adds a delivery where it fits; tells whether it does.
    pub(in crate::consumer) fn add(&mut self, next: Candidate) -> bool {
        let (limit, time) = (self.limit.min(next.limit), self.time + next.time);
        let bytes = self.bytes.saturating_add(next.bytes);
        let fits = self.deliveries < limit && time <= self.max_time && bytes <= MAX_BYTES;
        if fits {
            (self.deliveries, self.limit, self.time, self.bytes) =
                (self.deliveries + 1, limit, time, bytes);
        }
        fits
    }

    /// Tells whether no further delivery fits.
    pub(in crate::consumer) const fn is_full(&self) -> bool {
        self.deliveries >= self.limit || self.bytes >= MAX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::batch::MAX_BATCH;

    const fn candidate(limit: usize, micros: u64, bytes: usize) -> Candidate {
        Candidate { limit, time: Duration::from_micros(micros), bytes }
    }

    #[test]
    fn a_delivery_that_may_end_its_process_and_one_with_several_handlers_run_alone() {
        for (handlers, attempt, expected) in [
            (1, None, true),
            (1, Some(0), true),
            (1, Some(1), true),
            (1, Some(2), false),
            (1, Some(3), false),
            (0, None, false),
            (2, None, false),
        ] {
            assert_eq!(may_share(handlers, attempt), expected, "{handlers} {attempt:?}");
        }
    }

    #[test]
    fn a_batch_ends_at_its_limits_of_deliveries_time_and_bytes() {
        let kib = 1024;
        for (candidates, one_writer, expected) in [
            (vec![candidate(MAX_BATCH, 500, 200); 100], false, MAX_BATCH),
            (vec![candidate(MAX_BATCH, 5_000, 200); 100], false, 20),
            (vec![candidate(MAX_BATCH, 500, 200); 100], true, 40),
            (vec![candidate(MAX_BATCH, 5_000, 200); 100], true, 4),
            (vec![candidate(MAX_BATCH, 500, 100 * kib); 100], false, 10),
            // One that is too large for any batch is alone.
            (vec![candidate(MAX_BATCH, 500, 2 * kib * kib); 100], false, 1),
            (vec![candidate(1, 500, 200); 100], false, 1),
            (vec![candidate(8, 500, 200); 100], false, 8),
            // The smallest limit of all that are in it counts.
            (
                [vec![candidate(MAX_BATCH, 500, 200); 5], vec![candidate(6, 500, 200); 100]]
                    .concat(),
                false,
                6,
            ),
        ] {
            let mut plan = BatchPlan::of(candidates[0], one_writer);
            let mut taken = 1;
            for next in &candidates[1..] {
                taken += usize::from(plan.add(*next));
            }
            assert_eq!(taken, expected, "{:?}", candidates[0]);
        }
    }

    #[test]
    fn a_delivery_that_does_not_fit_leaves_the_room_to_others() {
        let mut plan = BatchPlan::of(candidate(MAX_BATCH, 500, 200), false);
        assert!(
            plan.add(candidate(MAX_BATCH, 500, 200)) && plan.add(candidate(MAX_BATCH, 500, 200))
        );
        assert!(!plan.add(candidate(2, 500, 200)), "its handler allows two");
        assert!(!plan.add(candidate(MAX_BATCH, 500, 2 << 20)), "it is too large");
        assert!(!plan.is_full() && plan.add(candidate(MAX_BATCH, 500, 200)));
    }
}
