//! What fails in a test, and where its process ends.

use super::others::Others;
use crate::saga::{Failed, Moment, Strike};
use std::collections::HashMap;

/// Where a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Records are written and not committed.
    Written,
    /// Records are committed.
    Committed,
}

/// What is left of what a test wants.
#[derive(Debug, Clone, Default)]
pub(super) struct Script {
    failures: HashMap<(String, bool), u32>,
    aborts: Vec<(String, bool)>,
    /// Where to cut, and how often the place is passed before.
    pub(super) cut: Option<(Cut, u32)>,
    was_cut: bool,
    /// Whether the process has ended: nothing more of it happens, whatever it was at.
    dead: bool,
    pub(super) others: Others,
}

impl Script {
    pub(super) fn with(others: Others) -> Self {
        Self { others, ..Self::default() }
    }

    pub(super) fn fail(&mut self, step: &str, undo: bool, attempts: u32) {
        self.failures.insert((step.to_owned(), undo), attempts);
    }

    pub(super) fn abort(&mut self, step: &str, undo: bool) {
        self.aborts.push((step.to_owned(), undo));
    }

    pub(super) fn was_cut(&self) -> bool {
        self.was_cut
    }

    /// Begins another life.
    pub(super) fn lives(&mut self) {
        self.dead = false;
        self.others.rolled_back();
    }

    /// Says what happens at a moment, and remembers it.
    pub(super) fn strike(&mut self, moment: Moment<'_>) -> Strike {
        let here = match moment {
            Moment::Attempt { .. } if self.dead => return Strike::Cut,
            Moment::Attempt { step, undo } => {
                self.others.begins(step);
                return self.attempt(step, undo);
            }
            Moment::Asked { call, command } => {
                self.others.asked(call, command);
                return Strike::Pass;
            }
            Moment::Written => Cut::Written,
            Moment::Committed(records) => {
                self.others.committed(records);
                Cut::Committed
            }
        };
        match &mut self.cut {
            _ if self.dead => Strike::Cut,
            Some((cut, 0)) if *cut == here => {
                self.cut = None;
                (self.was_cut, self.dead) = (true, true);
                Strike::Cut
            }
            Some((cut, passes)) if *cut == here => {
                *passes -= 1;
                Strike::Pass
            }
            _ => Strike::Pass,
        }
    }

    fn attempt(&mut self, step: &str, undo: bool) -> Strike {
        let what = (step.to_owned(), undo);
        if self.aborts.contains(&what) {
            return Strike::Fail(Failed::Abort("the test wants it".to_owned()));
        }
        match self.failures.get_mut(&what) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Strike::Fail(Failed::Retry("the test wants it".to_owned()))
            }
            _ => Strike::Pass,
        }
    }
}
