//! Where a saga stands: a pure, total transition function. The same rule stands as a CHECK in the migration.

use super::{
    json::Json,
    progress::{Held, StepProgress, StepState},
    record::Record,
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// State of a whole saga.
///
/// ```text
///              last step done                   operator
///   running ----------------------> completed
///      |  \__ gave up past the pivot __________> stuck
///      |  <__ resume, retry from, skip __________/  |  ^
///      |                                            |  |
///      |  gave up, aborted, deadline, cancelled     |  |  compensation gave up
///      v                          cancelled         v  |
///   compensating <-----------------------------------  |
///      |    \__________________________________________/
///      |  nothing left to undo
///      v
///   compensated
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SagaState {
    /// Its steps are being done.
    Running,
    /// What was done is being undone.
    Compensating,
    /// It waits for an operator.
    Stuck,
    /// All steps are done.
    Completed,
    /// All that was done is undone.
    Compensated,
}

impl SagaState {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Running, Self::Compensating, Self::Stuck, Self::Completed, Self::Compensated];

    /// Gives the name that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Stuck => "stuck",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
        }
    }

    /// Tells whether nothing can follow.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }

    /// Tells whether a coordinator has something to do with it, now or later.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Compensating)
    }
}

impl fmt::Display for SagaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SagaState {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|v| v.as_str() == s).ok_or(())
    }
}

/// Where a saga stands. Progress is kept by the steps' names: a definition may be read in another order tomorrow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The saga's state.
    pub state: SagaState,
    /// Whether it goes back; a stuck saga remembers where it was going.
    pub backward: bool,
    /// Steps that were tried, in the order in which they were first tried.
    pub steps: Vec<StepProgress>,
    /// Whether the pivot was ever done: an operator who lets it be done once more undoes nothing of that.
    #[serde(default)]
    pub forward_only: bool,
    /// Why it turned back or is stuck, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The step at which it is stuck, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck_at: Option<String>,
    /// Entities that are marked for it, in the order in which they were; until it ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<String>,
}

impl Default for Instance {
    /// A saga that was started.
    fn default() -> Self {
        Self {
            state: SagaState::Running,
            backward: false,
            steps: Vec::new(),
            forward_only: false,
            reason: None,
            stuck_at: None,
            locks: Vec::new(),
        }
    }
}

impl Instance {
    /// Finds a step that was tried.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&StepProgress> {
        self.steps.iter().find(|s| s.step == name)
    }

    /// Tells whether the pivot is done, or may be: the saga only goes forward then.
    #[must_use]
    pub fn past_pivot(&self) -> bool {
        self.forward_only || self.steps.iter().any(|s| s.pivot && s.state == StepState::Waiting)
    }

    /// Tells how many attempts in a row have failed at a step, or at its compensation when the saga goes back.
    #[must_use]
    pub fn failures(&self, name: &str) -> u32 {
        self.step(name).map_or(0, |s| s.failures)
    }

    /// Tells how many attempts in a row were made at a step, or at its compensation: those that failed, and commands to
    /// others.
    pub(super) fn attempts(&self, name: &str) -> u32 {
        let asked = self.step(name).and_then(|s| s.asked.as_ref()).map_or(0, |asked| asked.times);
        self.failures(name).saturating_add(asked)
    }

    /// Tells how many attempts in a row were begun, after one that may have ended its process, and did not end.
    #[must_use]
    pub fn begun(&self, name: &str) -> u32 {
        self.step(name).map_or(0, |s| s.begun)
    }

    /// Gives what its steps wait for, where other sagas have it.
    pub fn waits(&self) -> impl Iterator<Item = &Held> {
        self.steps.iter().filter_map(|known| known.held.as_ref())
    }

    /// Tells whether it may turn back by itself.
    #[must_use]
    pub fn may_turn_back(&self) -> bool {
        self.state == SagaState::Running && !self.past_pivot()
    }

    /// Gives the saga after records in a row; the name of one that means nothing where it stands is the error.
    pub(super) fn after_all(&self, records: &[Record]) -> Result<Self, &'static str> {
        records
            .iter()
            .try_fold(self.clone(), |instance, record| instance.after(record).ok_or(record.kind()))
    }

    /// Gives the saga after a record; `None` where the record means nothing there, and nothing changes.
    #[must_use]
    pub fn after(&self, record: &Record) -> Option<Self> {
        let mut next = self.clone();
        let applies = match (self.state, record) {
            (SagaState::Running, Record::Done { step, output, pivot, compensates, .. }) => {
                next.put(step, StepState::Done, Some(output.clone()), *pivot, *compensates)
            }
            (SagaState::Stuck, Record::Done { step, output, pivot, compensates, .. })
                if self.awaits(step) =>
            {
                next.put(step, StepState::Done, Some(output.clone()), *pivot, *compensates)
            }
            (
                SagaState::Running | SagaState::Compensating,
                Record::Asked { step, pivot, compensates, until_us, command, .. },
            ) => next.ask(step, (*pivot, *compensates), *until_us, command.as_deref()),
            (SagaState::Running | SagaState::Stuck, Record::Refused { step, reason }) => {
                next.refuse(step, reason)
            }
            (SagaState::Running, Record::TimedOut { step }) => next.time_out(step),
            (_, Record::Late { step, answer, output }) => next.late(step, answer, output.as_ref()),
            (SagaState::Running, Record::LeftOut { step, pivot }) => {
                next.put(step, StepState::Skipped, None, *pivot, false)
            }
            (
                SagaState::Running | SagaState::Compensating,
                Record::Failed { step, wait_us, until_us, .. },
            ) => next.fail(step, *wait_us, *until_us),
            (SagaState::Running | SagaState::Compensating, Record::Begun { step, times }) => {
                next.begin(step, *times)
            }
            (SagaState::Running | SagaState::Compensating, Record::Locked { entities, .. }) => {
                next.lock(entities)
            }
            (
                SagaState::Running | SagaState::Compensating,
                Record::Held { step, entity, holder, since_us },
            ) => next.hold(
                step,
                Held { entity: entity.clone(), holder: holder.clone(), since_us: *since_us },
            ),
            (SagaState::Running, Record::TurnedBack { reason, .. }) => next.turn_back(reason),
            (SagaState::Stuck, Record::TurnedBack { reason, by: Some(_) }) if !self.backward => {
                next.turn_back(reason)
            }
            (SagaState::Compensating, Record::Undone { step, .. }) => next.undone(step),
            (SagaState::Stuck, Record::Undone { step, .. }) if self.cancels(step) => {
                next.undone(step)
            }
            (
                SagaState::Running | SagaState::Compensating,
                Record::Stuck { step, reason, pivot },
            ) => next.stop(step.as_deref(), reason, *pivot),
            (SagaState::Stuck, Record::Resumed { .. }) => next.go_on(),
            (SagaState::Stuck, Record::RetriedFrom { step, .. }) => {
                next.back_to(step) && next.go_on()
            }
            (SagaState::Stuck, Record::Passed { step, .. }) => next.pass(step) && next.go_on(),
            (SagaState::Running, Record::Completed) => next.end(SagaState::Completed),
            (SagaState::Compensating, Record::Compensated) => {
                !self.steps.iter().any(StepProgress::is_open_behind)
                    && next.end(SagaState::Compensated)
            }
            (_, Record::Started { .. })
            | (SagaState::Running, _)
            | (SagaState::Compensating, _)
            | (SagaState::Stuck, _)
            | (SagaState::Completed | SagaState::Compensated, _) => false,
        };
        applies.then_some(next)
    }

    /// Notes that a step is behind; not where it is already.
    fn put(
        &mut self,
        step: &str,
        state: StepState,
        output: Option<Json>,
        pivot: bool,
        compensates: bool,
    ) -> bool {
        let at = self.entry(step);
        let known = &mut self.steps[at];
        let fits = match known.state {
            StepState::Failing | StepState::Waiting => true,
            StepState::Refused => state == StepState::Skipped,
            _ => false,
        };
        if !fits {
            return false;
        }
        let asked = known.asked.take();
        *known =
            StepProgress { state, output, pivot, compensates, asked, ..StepProgress::new(step) };
        self.forward_only |= pivot;
        true
    }

    /// Tells whether a step's answer is awaited.
    fn awaits(&self, step: &str) -> bool {
        self.step(step).is_some_and(|known| known.state == StepState::Waiting)
    }

    /// Tells whether an answer to a step's undoing may come.
    fn cancels(&self, step: &str) -> bool {
        let open = |known: &StepProgress| {
            matches!(known.state, StepState::Cancelling | StepState::Undoing)
        };
        self.step(step).is_some_and(|known| known.asked.is_some() && open(known))
    }

    /// Notes that a command goes out, for a step or for its undoing.
    fn ask(
        &mut self,
        step: &str,
        (pivot, compensates): (bool, bool),
        until_us: i64,
        command: Option<&str>,
    ) -> bool {
        if self.backward {
            let Some(known) = self.tried(step) else { return false };
            known.ask(StepState::Cancelling, until_us, command);
            return true;
        }
        let at = self.entry(step);
        let known = &mut self.steps[at];
        if !matches!(known.state, StepState::Failing | StepState::Waiting) {
            return false;
        }
        (known.pivot, known.compensates) = (pivot, compensates);
        known.ask(StepState::Waiting, until_us, command);
        true
    }

    /// Notes that a step cannot be done, and that nothing of it is.
    fn refuse(&mut self, step: &str, reason: &str) -> bool {
        let Some(known) =
            self.steps.iter_mut().find(|s| s.step == step && s.state == StepState::Waiting)
        else {
            return false;
        };
        known.state = StepState::Refused;
        known.forget_failures();
        if let Some(asked) = &mut known.asked {
            asked.refusal = Some(reason.to_owned());
        }
        true
    }

    /// Gives up waiting for an answer, which is not done of a pivot nor past it: there is no way back.
    fn time_out(&mut self, step: &str) -> bool {
        if self.past_pivot() {
            return false;
        }
        let Some(known) =
            self.steps.iter_mut().find(|s| s.step == step && s.state == StepState::Waiting)
        else {
            return false;
        };
        known.state = StepState::Unknown;
        true
    }

    /// Notes an answer to a command for a step that came after the saga had turned back; not one that was noted before. A
    /// step that was done after all is undone with what it returned. What is undone, and what has ended, stays as it is:
    /// whoever answers that a step is undone does not do it any more.
    fn late(&mut self, step: &str, answer: &str, output: Option<&Json>) -> bool {
        let undoes = self.backward && !self.state.is_final();
        let Some(known) = self.steps.iter_mut().find(|s| s.step == step) else { return false };
        let Some(asked) = &mut known.asked else { return false };
        let first = asked.late.as_deref() != Some(answer);
        asked.late = Some(answer.to_owned());
        let to_undo = matches!(known.state, StepState::Unknown | StepState::Cancelling);
        if undoes && to_undo && known.compensates && output.is_some() {
            (known.state, known.output) = (StepState::Done, output.cloned());
            asked.times = 0;
        }
        first
    }

    /// Finds a step that is to be tried, or undone where the saga goes back.
    fn tried(&mut self, step: &str) -> Option<&mut StepProgress> {
        if self.backward {
            return self.steps.iter_mut().find(|s| s.step == step && s.state.is_there());
        }
        let at = self.entry(step);
        Some(&mut self.steps[at])
            .filter(|s| matches!(s.state, StepState::Failing | StepState::Waiting))
    }

    fn fail(&mut self, step: &str, wait_us: u64, until_us: i64) -> bool {
        let backward = self.backward;
        let Some(known) = self.tried(step) else { return false };
        if backward {
            known.state = StepState::Undoing;
        }
        known.failures = known.failures.saturating_add(1);
        known.failing_us = known.failing_us.saturating_add(wait_us);
        (known.begun, known.held, known.rests_until_us) = (0, None, until_us);
        true
    }

    /// Notes entities that are marked for it.
    fn lock(&mut self, entities: &[String]) -> bool {
        self.locks.extend_from_slice(entities);
        true
    }

    /// Notes what a step waits for.
    fn hold(&mut self, step: &str, held: Held) -> bool {
        let Some(known) = self.tried(step) else { return false };
        (known.begun, known.held) = (0, Some(held));
        true
    }

    fn begin(&mut self, step: &str, times: u32) -> bool {
        let Some(known) = self.tried(step) else { return false };
        known.begun = times;
        true
    }

    /// Stops until an operator decides.
    fn stop(&mut self, step: Option<&str>, reason: &str, pivot: bool) -> bool {
        self.state = SagaState::Stuck;
        self.stuck_at = step.map(str::to_owned);
        self.reason = Some(reason.to_owned());
        for known in &mut self.steps {
            known.held = None;
        }
        if pivot && let Some(known) = step.and_then(|step| self.tried(step)) {
            known.pivot = true;
        }
        true
    }

    /// Turns back, which a saga past its pivot does not.
    fn turn_back(&mut self, reason: &str) -> bool {
        if self.past_pivot() {
            return false;
        }
        self.state = SagaState::Compensating;
        self.backward = true;
        self.reason = Some(reason.to_owned());
        self.stuck_at = None;
        for known in &mut self.steps {
            known.forget_failures();
            if known.state == StepState::Waiting {
                known.state = StepState::Unknown;
            }
        }
        true
    }

    fn undone(&mut self, step: &str) -> bool {
        let Some(known) = self.steps.iter_mut().find(|s| s.step == step && s.state.is_there())
        else {
            return false;
        };
        known.state = StepState::Undone;
        known.forget_failures();
        true
    }

    /// Goes on in the direction in which it went, with no failures counted.
    fn go_on(&mut self) -> bool {
        self.state = if self.backward { SagaState::Compensating } else { SagaState::Running };
        self.stuck_at = None;
        if !self.backward {
            self.reason = None;
        }
        for known in &mut self.steps {
            known.forget_failures();
            // What was refused is asked once more.
            if !self.backward && known.state == StepState::Refused {
                *known = known.once_more(false).unwrap_or_else(|| StepProgress::new(&known.step));
            }
        }
        true
    }

    /// Goes back to a step, to do it and what follows once more; in a compensation, to undo it and what follows.
    fn back_to(&mut self, step: &str) -> bool {
        let Some(at) = self.steps.iter().position(|s| s.step == step) else {
            // It has stopped before it was ever tried.
            return !self.backward && self.stuck_at.as_deref() == Some(step);
        };
        if self.backward {
            // What follows in a compensation was done before.
            for known in self.steps[..=at]
                .iter_mut()
                .filter(|s| s.state == StepState::Undone || s.is_open_behind())
            {
                known.state = StepState::Done;
            }
        } else {
            let stuck_at = self.stuck_at.as_deref();
            let once_more = |known: &StepProgress| known.once_more(stuck_at == Some(&*known.step));
            let once_more: Vec<StepProgress> =
                self.steps[at..].iter().filter_map(once_more).collect();
            self.steps.truncate(at);
            self.steps.extend(once_more);
        }
        true
    }

    /// Counts the step at which it is stuck as done, or as undone, without doing it. The pivot counts as done too: what
    /// cannot be taken back was done by other means, so that the saga only goes forward.
    fn pass(&mut self, step: &str) -> bool {
        if self.stuck_at.as_deref() != Some(step) {
            return false;
        }
        let pivot = self.step(step).is_some_and(|known| known.pivot);
        if self.backward {
            self.undone(step)
        } else {
            self.put(step, StepState::Skipped, None, pivot, false)
        }
    }

    fn end(&mut self, state: SagaState) -> bool {
        self.state = state;
        true
    }

    /// Finds the place of a step, making one for it when it was never tried.
    fn entry(&mut self, step: &str) -> usize {
        if let Some(at) = self.steps.iter().position(|s| s.step == step) {
            return at;
        }
        self.steps.push(StepProgress::new(step));
        self.steps.len() - 1
    }
}
