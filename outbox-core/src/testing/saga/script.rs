//! The failures and the crash that a test injects.

use super::participants::Participants;
use crate::saga::{StepFailure, TestAction, TestPoint};
use std::collections::HashMap;

/// Where a process crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CrashPoint {
    /// Records are written and not committed.
    Written,
    /// Records are committed.
    Committed,
}

/// The failures and the crash that are still to be injected.
#[derive(Debug, Clone, Default)]
pub(super) struct Script {
    failures: HashMap<(String, bool), u32>,
    aborts: Vec<(String, bool)>,
    /// Where to crash, and how often that point is passed before.
    pub(super) crash_at: Option<(CrashPoint, u32)>,
    has_crashed: bool,
    /// Whether the process has crashed: every further point crashes too.
    dead: bool,
    pub(super) participants: Participants,
}

impl Script {
    pub(super) fn with(participants: Participants) -> Self {
        Self { participants, ..Self::default() }
    }

    pub(super) fn fail(&mut self, step: &str, undo: bool, attempts: u32) {
        self.failures.insert((step.to_owned(), undo), attempts);
    }

    pub(super) fn abort(&mut self, step: &str, undo: bool) {
        self.aborts.push((step.to_owned(), undo));
    }

    pub(super) fn has_crashed(&self) -> bool {
        self.has_crashed
    }

    /// Starts the next process.
    pub(super) fn restart(&mut self) {
        self.dead = false;
        self.participants.rolled_back();
    }

    /// Decides what happens at a point, and counts it.
    pub(super) fn at(&mut self, point: TestPoint<'_>) -> TestAction {
        let here = match point {
            TestPoint::Attempt { .. } if self.dead => return TestAction::Crash,
            TestPoint::Attempt { step, undo } => {
                self.participants.attempt_starts(step);
                return self.attempt(step, undo);
            }
            TestPoint::CommandSent { id, command } => {
                self.participants.command_sent(id, command);
                return TestAction::Continue;
            }
            TestPoint::Written => CrashPoint::Written,
            TestPoint::Committed(records) => {
                self.participants.committed(records);
                CrashPoint::Committed
            }
        };
        match &mut self.crash_at {
            _ if self.dead => TestAction::Crash,
            Some((point, 0)) if *point == here => {
                self.crash_at = None;
                (self.has_crashed, self.dead) = (true, true);
                TestAction::Crash
            }
            Some((point, passes)) if *point == here => {
                *passes -= 1;
                TestAction::Continue
            }
            _ => TestAction::Continue,
        }
    }

    fn attempt(&mut self, step: &str, undo: bool) -> TestAction {
        let what = (step.to_owned(), undo);
        if self.aborts.contains(&what) {
            return TestAction::Fail(StepFailure::Abort("the test wants it".to_owned()));
        }
        match self.failures.get_mut(&what) {
            Some(left) if *left > 0 => {
                *left -= 1;
                TestAction::Fail(StepFailure::Retry("the test wants it".to_owned()))
            }
            _ => TestAction::Continue,
        }
    }
}
