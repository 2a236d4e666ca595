//! The state of a saga, and its transition function: pure and total. The migration has the same
//! rule as a CHECK.

use super::{
    json::Json,
    progress::{BlockedOn, StepProgress, StepState},
    record::Record,
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// State of a whole saga.
///
/// ```text
///              last step done                   operator
///   running ----------------------> completed
///      |  \__ step failed past the pivot _______> stuck
///      |  <__ resume, retry from, skip __________/  |  ^
///      |                                            |  |
///      |  step failed, deadline, cancelled          |  |  compensation failed
///      v                          cancelled         v  |
///   compensating <-----------------------------------  |
///      |    \__________________________________________/
///      |  nothing left to undo
///      v
///   compensated
/// ```
///
/// ```
/// # use outbox_core::saga::SagaState;
/// assert_eq!("stuck".parse(), Ok(SagaState::Stuck));
/// assert!(SagaState::Compensated.is_final() && !SagaState::Stuck.is_final());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SagaState {
    /// The coordinator runs its steps.
    Running,
    /// The coordinator runs the compensations of what was done.
    Compensating,
    /// It waits for an operator's decision.
    Stuck,
    /// All steps are done.
    Completed,
    /// Everything that was done is undone.
    Compensated,
}

impl SagaState {
    /// All states.
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

    /// Tells whether the saga has ended: no record changes it any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }

    /// Tells whether a coordinator drives the saga, now or later.
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

/// The state of a saga and of its steps. Steps are kept by name, since a later definition may order
/// them otherwise.
///
/// ```
/// # use outbox_core::saga::{Instance, StepState};
/// # fn example(instance: &Instance) {
/// let waits = instance.steps.iter().filter(|step| step.state == StepState::Waiting);
/// println!("{:?}, {} steps wait for replies", instance.state, waits.count());
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The saga's state.
    pub state: SagaState,
    /// Whether it compensates; a stuck saga keeps its direction.
    pub backward: bool,
    /// The steps of which something is recorded, in the order of their first records.
    pub steps: Vec<StepProgress>,
    /// Whether the pivot was ever done: this stays where an operator lets the saga do the pivot
    /// again.
    #[serde(default)]
    pub forward_only: bool,
    /// Why it compensates or is stuck, as a text for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The step at which it is stuck, where a step is the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck_at: Option<String>,
    /// The entities that it has locked until it ends, in the order in which it locked them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<String>,
}

impl Default for Instance {
    /// Gives the state of a saga that was just started.
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
    /// Finds a step of which something is recorded.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&StepProgress> {
        self.steps.iter().find(|s| s.step == name)
    }

    /// Tells whether the pivot is done, or may be: then the saga only goes forward.
    #[must_use]
    pub fn past_pivot(&self) -> bool {
        self.forward_only || self.steps.iter().any(|s| s.pivot && s.state == StepState::Waiting)
    }

    /// Counts the failed attempts in a row at a step, or at its compensation where the saga
    /// compensates.
    #[must_use]
    pub fn failures(&self, name: &str) -> u32 {
        self.step(name).map_or(0, |s| s.failures)
    }

    /// Counts the attempts in a row at a step, or at its compensation: failures, and commands that
    /// were sent.
    pub(super) fn attempts(&self, name: &str) -> u32 {
        let command = self.step(name).and_then(|s| s.command.as_ref());
        self.failures(name).saturating_add(command.map_or(0, |command| command.sends))
    }

    /// Counts the attempts in a row that were recorded before they were made, after one that may
    /// have ended its process, and whose end is not known.
    #[must_use]
    pub fn unfinished_attempts(&self, name: &str) -> u32 {
        self.step(name).map_or(0, |s| s.unfinished_attempts)
    }

    /// Gives the locks of other sagas for which its steps wait.
    pub fn blocked_on(&self) -> impl Iterator<Item = &BlockedOn> {
        self.steps.iter().filter_map(|known| known.blocked_on.as_ref())
    }

    /// Tells whether it may start compensating without an operator.
    #[must_use]
    pub fn may_compensate(&self) -> bool {
        self.state == SagaState::Running && !self.past_pivot()
    }

    /// Applies records in a row; the error is the kind of the first that does not apply.
    pub(super) fn after_all(&self, records: &[Record]) -> Result<Self, &'static str> {
        records
            .iter()
            .try_fold(self.clone(), |instance, record| instance.after(record).ok_or(record.kind()))
    }

    /// Applies a record; `None` where it does not apply in this state.
    #[must_use]
    pub fn after(&self, record: &Record) -> Option<Self> {
        let mut next = self.clone();
        let applies = match (self.state, record) {
            (SagaState::Running, Record::Done { step, output, pivot, compensates, .. }) => {
                next.finish(step, StepState::Done, Some(output.clone()), *pivot, *compensates)
            }
            (SagaState::Stuck, Record::Done { step, output, pivot, compensates, .. })
                if self.awaits_reply(step) =>
            {
                next.finish(step, StepState::Done, Some(output.clone()), *pivot, *compensates)
            }
            (
                SagaState::Running | SagaState::Compensating,
                Record::CommandSent {
                    step, pivot, compensates, reply_due_us, command_hash, ..
                },
            ) => {
                let hash = command_hash.as_deref();
                next.command_sent(step, (*pivot, *compensates), *reply_due_us, hash)
            }
            (SagaState::Running | SagaState::Stuck, Record::Rejected { step, reason }) => {
                next.reject(step, reason)
            }
            (SagaState::Running, Record::TimedOut { step }) => next.time_out(step),
            (_, Record::LateReply { step, reply, output }) => {
                next.late_reply(step, reply, output.as_ref())
            }
            (SagaState::Running, Record::SkippedByCondition { step, pivot }) => {
                next.finish(step, StepState::Skipped, None, *pivot, false)
            }
            (
                SagaState::Running | SagaState::Compensating,
                Record::Failed { step, wait_us, retry_at_us, .. },
            ) => next.fail(step, *wait_us, *retry_at_us),
            (
                SagaState::Running | SagaState::Compensating,
                Record::AttemptStarted { step, unfinished_attempts },
            ) => next.start_attempt(step, *unfinished_attempts),
            (SagaState::Running | SagaState::Compensating, Record::Locked { entities, .. }) => {
                next.lock(entities)
            }
            (
                SagaState::Running | SagaState::Compensating,
                Record::BlockedOnLock { step, entity, holder, since_us },
            ) => next.block(
                step,
                BlockedOn { entity: entity.clone(), holder: holder.clone(), since_us: *since_us },
            ),
            (SagaState::Running, Record::CompensationStarted { reason, .. }) => {
                next.start_compensating(reason)
            }
            (SagaState::Stuck, Record::CompensationStarted { reason, by: Some(_) })
                if !self.backward =>
            {
                next.start_compensating(reason)
            }
            (SagaState::Compensating, Record::Undone { step, .. }) => next.undone(step),
            (SagaState::Stuck, Record::Undone { step, .. }) if self.awaits_undo_reply(step) => {
                next.undone(step)
            }
            (
                SagaState::Running | SagaState::Compensating,
                Record::Stuck { step, reason, pivot },
            ) => next.get_stuck(step.as_deref(), reason, *pivot),
            (SagaState::Stuck, Record::Resumed { .. }) => next.resume(),
            (SagaState::Stuck, Record::RetriedFrom { step, .. }) => {
                next.return_to(step) && next.resume()
            }
            (SagaState::Stuck, Record::SkippedByOperator { step, .. }) => {
                next.skip(step) && next.resume()
            }
            (SagaState::Running, Record::Completed) => next.end(SagaState::Completed),
            (SagaState::Compensating, Record::Compensated) => {
                !self.steps.iter().any(StepProgress::owes_undo) && next.end(SagaState::Compensated)
            }
            (_, Record::Started { .. })
            | (SagaState::Running, _)
            | (SagaState::Compensating, _)
            | (SagaState::Stuck, _)
            | (SagaState::Completed | SagaState::Compensated, _) => false,
        };
        applies.then_some(next)
    }

    /// Applies that a step is done or skipped; not where it was already.
    fn finish(
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
            StepState::Pending | StepState::Waiting => true,
            StepState::Rejected => state == StepState::Skipped,
            _ => false,
        };
        if !fits {
            return false;
        }
        let command = known.command.take();
        *known =
            StepProgress { state, output, pivot, compensates, command, ..StepProgress::new(step) };
        self.forward_only |= pivot;
        true
    }

    /// Tells whether the reply to a step's command is awaited.
    fn awaits_reply(&self, step: &str) -> bool {
        self.step(step).is_some_and(|known| known.state == StepState::Waiting)
    }

    /// Tells whether a reply to the command that undoes a step may come.
    fn awaits_undo_reply(&self, step: &str) -> bool {
        let open = |known: &StepProgress| {
            matches!(known.state, StepState::Cancelling | StepState::CompensationFailing)
        };
        self.step(step).is_some_and(|known| known.command.is_some() && open(known))
    }

    /// Applies that a command was sent, for a step or for its compensation.
    fn command_sent(
        &mut self,
        step: &str,
        (pivot, compensates): (bool, bool),
        reply_due_us: i64,
        hash: Option<&str>,
    ) -> bool {
        if self.backward {
            let Some(known) = self.current(step) else { return false };
            known.command_sent(StepState::Cancelling, reply_due_us, hash);
            return true;
        }
        let at = self.entry(step);
        let known = &mut self.steps[at];
        if !matches!(known.state, StepState::Pending | StepState::Waiting) {
            return false;
        }
        (known.pivot, known.compensates) = (pivot, compensates);
        known.command_sent(StepState::Waiting, reply_due_us, hash);
        true
    }

    /// Applies that the participant has rejected a step's command, and that nothing of the step is
    /// done.
    fn reject(&mut self, step: &str, reason: &str) -> bool {
        let Some(known) =
            self.steps.iter_mut().find(|s| s.step == step && s.state == StepState::Waiting)
        else {
            return false;
        };
        known.state = StepState::Rejected;
        known.reset_failures();
        if let Some(command) = &mut known.command {
            command.rejection = Some(reason.to_owned());
        }
        true
    }

    /// Applies that no reply came in time; not for the pivot, nor past it, where the saga cannot
    /// compensate.
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

    /// Applies a reply to a step's command that came after compensation had started; not one that
    /// was recorded before. A step that was done after all is undone with what it returned. A step
    /// that is undone, and a saga that has ended, stay as they are: a participant that has replied
    /// that a step is undone does not do that step any more.
    fn late_reply(&mut self, step: &str, reply: &str, output: Option<&Json>) -> bool {
        let undoes = self.backward && !self.state.is_final();
        let Some(known) = self.steps.iter_mut().find(|s| s.step == step) else { return false };
        let Some(command) = &mut known.command else { return false };
        let first = command.late_reply.as_deref() != Some(reply);
        command.late_reply = Some(reply.to_owned());
        let to_undo = matches!(known.state, StepState::Unknown | StepState::Cancelling);
        if undoes && to_undo && known.compensates && output.is_some() {
            (known.state, known.output) = (StepState::Done, output.cloned());
            command.sends = 0;
        }
        first
    }

    /// Finds a step that the saga may attempt now, or may undo where it compensates.
    fn current(&mut self, step: &str) -> Option<&mut StepProgress> {
        if self.backward {
            return self.steps.iter_mut().find(|s| s.step == step && s.state.may_need_undo());
        }
        let at = self.entry(step);
        Some(&mut self.steps[at])
            .filter(|s| matches!(s.state, StepState::Pending | StepState::Waiting))
    }

    fn fail(&mut self, step: &str, wait_us: u64, retry_at_us: i64) -> bool {
        let backward = self.backward;
        let Some(known) = self.current(step) else { return false };
        if backward {
            known.state = StepState::CompensationFailing;
        }
        known.failures = known.failures.saturating_add(1);
        known.failing_us = known.failing_us.saturating_add(wait_us);
        (known.unfinished_attempts, known.blocked_on) = (0, None);
        known.retry_at_us = retry_at_us;
        true
    }

    /// Applies that it has locked entities.
    fn lock(&mut self, entities: &[String]) -> bool {
        self.locks.extend_from_slice(entities);
        true
    }

    /// Applies that a step waits for a lock.
    fn block(&mut self, step: &str, blocked_on: BlockedOn) -> bool {
        let Some(known) = self.current(step) else { return false };
        (known.unfinished_attempts, known.blocked_on) = (0, Some(blocked_on));
        true
    }

    fn start_attempt(&mut self, step: &str, unfinished_attempts: u32) -> bool {
        let Some(known) = self.current(step) else { return false };
        known.unfinished_attempts = unfinished_attempts;
        true
    }

    /// Makes it stuck until an operator decides.
    fn get_stuck(&mut self, step: Option<&str>, reason: &str, pivot: bool) -> bool {
        self.state = SagaState::Stuck;
        self.stuck_at = step.map(str::to_owned);
        self.reason = Some(reason.to_owned());
        for known in &mut self.steps {
            known.blocked_on = None;
        }
        if pivot && let Some(known) = step.and_then(|step| self.current(step)) {
            known.pivot = true;
        }
        true
    }

    /// Starts compensating, which a saga past its pivot never does.
    fn start_compensating(&mut self, reason: &str) -> bool {
        if self.past_pivot() {
            return false;
        }
        self.state = SagaState::Compensating;
        self.backward = true;
        self.reason = Some(reason.to_owned());
        self.stuck_at = None;
        for known in &mut self.steps {
            known.reset_failures();
            if known.state == StepState::Waiting {
                known.state = StepState::Unknown;
            }
        }
        true
    }

    fn undone(&mut self, step: &str) -> bool {
        let Some(known) = self.steps.iter_mut().find(|s| s.step == step && s.state.may_need_undo())
        else {
            return false;
        };
        known.state = StepState::Undone;
        known.reset_failures();
        true
    }

    /// Goes on in its direction, with all failures reset.
    fn resume(&mut self) -> bool {
        self.state = if self.backward { SagaState::Compensating } else { SagaState::Running };
        self.stuck_at = None;
        if !self.backward {
            self.reason = None;
        }
        for known in &mut self.steps {
            known.reset_failures();
            // The command that was rejected is sent again.
            if !self.backward && known.state == StepState::Rejected {
                *known =
                    known.reset_for_retry(false).unwrap_or_else(|| StepProgress::new(&known.step));
            }
        }
        true
    }

    /// Returns to a step, to do it and those behind it again; in a compensation, to undo it and
    /// those before it again.
    fn return_to(&mut self, step: &str) -> bool {
        let Some(at) = self.steps.iter().position(|s| s.step == step) else {
            // The saga got stuck before the step was ever attempted.
            return !self.backward && self.stuck_at.as_deref() == Some(step);
        };
        if self.backward {
            // A compensation goes to the steps that were done before.
            for known in self.steps[..=at]
                .iter_mut()
                .filter(|s| s.state == StepState::Undone || s.owes_undo())
            {
                known.state = StepState::Done;
            }
        } else {
            let stuck_at = self.stuck_at.as_deref();
            let reset =
                |known: &StepProgress| known.reset_for_retry(stuck_at == Some(&*known.step));
            let reset: Vec<StepProgress> = self.steps[at..].iter().filter_map(reset).collect();
            self.steps.truncate(at);
            self.steps.extend(reset);
        }
        true
    }

    /// Counts the step at which it is stuck as done, or as undone, without an attempt. A skipped
    /// pivot counts as done too: the operator has done by other means what cannot be undone, and
    /// the saga only goes forward.
    fn skip(&mut self, step: &str) -> bool {
        if self.stuck_at.as_deref() != Some(step) {
            return false;
        }
        let pivot = self.step(step).is_some_and(|known| known.pivot);
        if self.backward {
            self.undone(step)
        } else {
            self.finish(step, StepState::Skipped, None, pivot, false)
        }
    }

    fn end(&mut self, state: SagaState) -> bool {
        self.state = state;
        true
    }

    /// Finds the index of a step, and adds the step where nothing is recorded of it.
    fn entry(&mut self, step: &str) -> usize {
        if let Some(at) = self.steps.iter().position(|s| s.step == step) {
            return at;
        }
        self.steps.push(StepProgress::new(step));
        self.steps.len() - 1
    }
}
