//! How often a stored delivery may end its process: pure.

/// Lives of a process that a delivery may cost before it is buried. A process that is killed from outside again and again hits
/// an innocent one two or three times among thousands.
const LIVES: u32 = 5;

/// How the next run of a stored delivery is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Beside others.
    Shared,
    /// With nothing else from the store beside it: one that was begun and never ended may have ended its process, and
    /// those that ran beside it are innocent.
    Alone,
    /// No more: it ended its process each time.
    Over,
}

/// Tells how a delivery is to be run next that was begun so often, and whose runs ended so often.
pub(super) const fn next_life(started: u32, ended: u32) -> Life {
    match started.saturating_sub(ended) {
        0 => Life::Shared,
        lost if lost < LIVES => Life::Alone,
        _ => Life::Over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_runs_that_never_ended_cost_lives() {
        for (started, ended, expected) in [
            (0, 0, Life::Shared),
            (7, 7, Life::Shared),
            (1, 0, Life::Alone),
            (2, 0, Life::Alone),
            (4, 0, Life::Alone),
            (5, 0, Life::Over),
            (11, 7, Life::Alone),
            (12, 7, Life::Over),
            (u32::MAX, 0, Life::Over),
            // A count that was lost counts for nobody.
            (0, 3, Life::Shared),
        ] {
            assert_eq!(next_life(started, ended), expected, "{started} begun, {ended} ended");
        }
    }
}
