//! How often a stored delivery may end its process: pure.

use crate::failure::MAX_CRASHES;

/// How the next run of a stored delivery runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunMode {
    /// Beside other stored deliveries.
    Concurrent,
    /// Without another stored delivery beside it: a run that was started and never ended may have ended its
    /// process, and the deliveries beside it would be counted as well.
    Isolated,
    /// Not at all: it ended its process each time.
    Exhausted,
}

/// Gives the mode of the next run, by the number of runs that were started and that ended.
pub(super) const fn run_mode(started: u32, ended: u32) -> RunMode {
    match started.saturating_sub(ended) {
        0 => RunMode::Concurrent,
        lost if lost < MAX_CRASHES => RunMode::Isolated,
        _ => RunMode::Exhausted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_runs_that_never_ended_count_as_crashes() {
        for (started, ended, expected) in [
            (0, 0, RunMode::Concurrent),
            (7, 7, RunMode::Concurrent),
            (1, 0, RunMode::Isolated),
            (2, 0, RunMode::Isolated),
            (4, 0, RunMode::Isolated),
            (5, 0, RunMode::Exhausted),
            (11, 7, RunMode::Isolated),
            (12, 7, RunMode::Exhausted),
            (u32::MAX, 0, RunMode::Exhausted),
            // A count that was lost counts for nothing.
            (0, 3, RunMode::Concurrent),
        ] {
            assert_eq!(run_mode(started, ended), expected, "{started} begun, {ended} ended");
        }
    }
}
