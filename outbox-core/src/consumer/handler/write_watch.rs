//! Handlers that write nothing through their transaction: their effects are elsewhere, and happen twice when a message does.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Runs without a write after which a handler is warned of.
const RUNS: u32 = 100;
/// The count of a handler that has written, or that was warned of.
const SETTLED: u32 = u32::MAX;

/// Successful runs of a handler that wrote nothing, until one writes.
#[derive(Debug, Default)]
pub(in crate::consumer) struct WriteWatch(AtomicU32);

impl WriteWatch {
    /// Notes a successful run. Tells whether it is the one to warn of: the last of the first hundred, none of which wrote.
    pub(in crate::consumer) fn note(&self, wrote: bool) -> bool {
        let next = |runs| match runs {
            SETTLED => None,
            _ if wrote => Some(SETTLED),
            _ if runs + 1 >= RUNS => Some(SETTLED),
            _ => Some(runs + 1),
        };
        let before = self.0.fetch_update(Relaxed, Relaxed, next);
        !wrote && before.is_ok_and(|runs| runs + 1 >= RUNS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_warned_of_once_when_none_of_its_first_hundred_runs_wrote() {
        let watch = WriteWatch::default();
        let warned: Vec<usize> = (1..=1_000).filter(|_| watch.note(false)).collect();
        assert_eq!(warned, [100]);
        for writes in [1, 99, 100] {
            let watch = WriteWatch::default();
            assert!((1..=1_000).all(|run| !watch.note(run == writes)), "it wrote in run {writes}");
        }
    }
}
