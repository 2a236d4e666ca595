//! The state of a transaction: pure bookkeeping, changed under a lock that is never held across an
//! await.

use super::{phases::Hooks, trial::Effects};
use crate::{dialect::TxEffect, error::OutboxError, listener::QueuedNotification, outbox::Pending};
use outbox_core::event::CorrelationContext;
use sea_orm::{DbErr, IsolationLevel};
use std::time::Duration;

/// Number of a frame: 0 is the transaction itself, others are savepoints, never used twice.
pub(super) type FrameId = u32;

/// The transaction, or one savepoint: its events and hooks are dropped with it.
#[derive(Default)]
pub(super) struct Frame {
    id: FrameId,
    /// With their place among all events of the transaction.
    events: Vec<(u64, Pending)>,
    notifications: Vec<(u64, QueuedNotification)>,
    pub(super) hooks: Hooks,
    /// The correlation of its events.
    correlation: Option<CorrelationContext>,
    /// The correlations of its events up to a place, where handlers share the transaction.
    sealed: Vec<(u64, CorrelationContext)>,
    /// A joined function that failed; the frame can only be rolled back.
    failed: Option<&'static str>,
    /// Its handle was dropped without commit; its savepoint is undone before the next statement.
    abandoned: bool,
    /// A savepoint was set in it, and the driver's own transaction was exposed.
    driver_exposed: bool,
    /// What was done in it, where the transaction is tried.
    effects: Effects,
}

/// A notification with the correlation that was kept for it.
pub(super) type SealedNotification = (Option<CorrelationContext>, QueuedNotification);

/// How the transaction ended.
enum Terminal {
    Ended,
    Aborted(DbErr),
}

/// The state of one transaction.
pub(super) struct State {
    /// From the transaction itself to the innermost savepoint.
    frames: Vec<Frame>,
    next: FrameId,
    emitted: u64,
    terminal: Option<Terminal>,
    conflict: bool,
    /// Whether a statement has failed, or has not ended, since the last success: COMMIT may then
    /// roll back.
    commit_unverified: bool,
    /// Whether events were written, so that the commit wakes the relay.
    wrote: bool,
    /// Statements that write, by their first word.
    statements: u64,
    isolation: Option<IsolationLevel>,
    read_only: bool,
    /// The failure by which another transaction, or a lost connection, has ended it.
    disturbance: Option<DbErr>,
    /// The first statement that failed, also one that was undone with its savepoint.
    failed: Option<DbErr>,
    /// What is known of it where it is tried, and never committed.
    trial: Option<Trial>,
}

/// A transaction that is tried.
struct Trial {
    /// How long its handler, and what comes before a commit, may take each.
    limit: Duration,
    /// The calls that were refused.
    refused: Vec<String>,
}

impl State {
    pub(super) fn new(isolation: Option<IsolationLevel>, read_only: bool) -> Self {
        Self {
            frames: vec![Frame::default()],
            next: 1,
            emitted: 0,
            terminal: None,
            conflict: false,
            commit_unverified: false,
            wrote: false,
            statements: 0,
            isolation,
            read_only,
            disturbance: None,
            failed: None,
            trial: None,
        }
    }

    /// Makes it a try: what is done is noted, and nothing runs after its end. What comes before a
    /// commit may take so long.
    pub(super) fn begin_trial(&mut self, limit: Duration) {
        self.trial = Some(Trial { limit, refused: Vec::new() });
    }

    /// Gives the time limit of a try.
    pub(super) fn trial_limit(&self) -> Duration {
        self.trial.as_ref().map_or(Duration::MAX, |trial| trial.limit)
    }

    /// Tells whether it is a try.
    pub(super) const fn is_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Notes a call that was refused, of which a try names so many.
    pub(super) fn refused(&mut self, call: &str, most: usize) {
        if let Some(Trial { refused, .. }) = &mut self.trial
            && refused.len() < most
            && !refused.iter().any(|known| known == call)
        {
            refused.push(call.to_owned());
        }
    }

    /// Gives what was done in a frame of a try, to add to it.
    pub(super) fn effects(&mut self, id: FrameId) -> Option<&mut Effects> {
        self.trial.as_ref()?;
        self.frames.iter_mut().find(|f| f.id == id && !f.abandoned).map(|f| &mut f.effects)
    }

    /// Takes what was done in a try, and the calls that were refused.
    pub(super) fn take_effects(&mut self) -> (Effects, Vec<String>) {
        let effects = self.frames.first_mut().map(|frame| std::mem::take(&mut frame.effects));
        let refused = self.trial.as_ref().map(|trial| trial.refused.clone());
        (effects.unwrap_or_default(), refused.unwrap_or_default())
    }

    /// Notes a statement that writes.
    pub(super) const fn note_write(&mut self) {
        self.statements += 1;
    }

    /// Counts the writes so far: statements and emitted events.
    pub(super) const fn writes(&self) -> u64 {
        self.statements + self.emitted
    }

    /// Whether it only reads.
    pub(super) const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The level that the transaction was opened with.
    pub(super) const fn isolation(&self) -> Option<IsolationLevel> {
        self.isolation
    }

    /// Tells whether a deadlock or the like was seen, so that repeating the whole transaction may
    /// help.
    pub(super) const fn conflict(&self) -> bool {
        self.conflict
    }

    /// Gives the failure by which another transaction has disturbed it, or by which its connection
    /// was lost.
    pub(super) const fn disturbance(&self) -> Option<&DbErr> {
        self.disturbance.as_ref()
    }

    /// Tells whether the database has rolled it back, or has lost it.
    pub(super) fn is_rolled_back(&self) -> bool {
        match &self.terminal {
            Some(Terminal::Aborted(error)) => TxEffect::of(error).ends_transaction(),
            _ => false,
        }
    }

    /// Tells whether a failed statement may have left the transaction unable to commit.
    pub(super) const fn commit_unverified(&self) -> bool {
        self.commit_unverified
    }

    /// Ends the part of the transaction that one handler had for itself: what it left for the commit
    /// keeps the correlation of its events.
    ///
    /// # Errors
    /// The first statement that failed, whatever became of it; a joined function that failed.
    pub(super) fn seal(&mut self, id: FrameId) -> Result<(), OutboxError> {
        let (failed, emitted) = (self.failed.clone(), self.emitted);
        let frame = self.frame(id)?;
        frame.check()?;
        if let Some(error) = failed {
            return Err(OutboxError::Aborted(error));
        }
        frame.seal(emitted);
        Ok(())
    }

    /// Tells whether events were written.
    pub(super) const fn wrote(&self) -> bool {
        self.wrote
    }

    /// Notes that events were written.
    pub(super) fn note_written(&mut self) {
        self.wrote = true;
    }

    /// Notes that a statement has started, whose result comes with [`note`](Self::note).
    pub(super) fn note_started(&mut self) {
        self.commit_unverified = true;
    }

    /// Notes the result of a statement.
    pub(super) fn note(&mut self, result: Result<(), &DbErr>) {
        let Err(error) = result else {
            self.commit_unverified = false;
            return;
        };
        self.failed.get_or_insert_with(|| error.clone());
        let effect = TxEffect::of(error);
        self.conflict |= matches!(effect, TxEffect::Conflict | TxEffect::Busy);
        if matches!(effect, TxEffect::Conflict | TxEffect::Busy | TxEffect::Lost) {
            self.disturbance.get_or_insert_with(|| error.clone());
        }
        // The first cause stays: what follows on a lost or aborted transaction only says that it
        // has ended.
        if effect.ends_transaction() && self.terminal.is_none() {
            self.terminal = Some(Terminal::Aborted(error.clone()));
        }
    }

    /// Notes that the database has lost the transaction.
    pub(super) fn abort(&mut self, error: &DbErr) {
        self.note(Err(error));
        self.terminal.get_or_insert_with(|| Terminal::Aborted(error.clone()));
    }

    /// Finds the frame of a handle.
    fn find(&self, id: FrameId) -> Result<usize, OutboxError> {
        match &self.terminal {
            Some(Terminal::Ended) => return Err(OutboxError::Ended),
            Some(Terminal::Aborted(error)) => return Err(OutboxError::Aborted(error.clone())),
            None => {}
        }
        self.frames.iter().position(|f| f.id == id && !f.abandoned).ok_or(OutboxError::Ended)
    }

    /// Adds an event to a frame, and the notification of its listeners.
    pub(super) fn push(
        &mut self,
        id: FrameId,
        event: Pending,
        notification: Option<QueuedNotification>,
    ) -> Result<(), OutboxError> {
        let (at, place) = (self.find(id)?, self.emitted);
        self.emitted += 1;
        self.frames[at].events.push((place, event));
        self.frames[at]
            .notifications
            .extend(notification.map(|notification| (place, notification)));
        Ok(())
    }

    /// Sets what the events of a frame follow from.
    pub(super) fn correlate(&mut self, id: FrameId, correlation: CorrelationContext) {
        if let Some(frame) = self.frames.iter_mut().find(|f| f.id == id) {
            frame.correlation = Some(correlation);
        }
    }

    /// Gives what the events of a frame follow from.
    pub(super) fn correlation(&self, id: FrameId) -> Option<CorrelationContext> {
        self.frames.iter().find(|f| f.id == id)?.correlation.clone()
    }

    /// Gives the hooks of a frame; `None` when it has ended.
    pub(super) fn hooks(&mut self, id: FrameId) -> Option<&mut Hooks> {
        self.frames.iter_mut().find(|f| f.id == id && !f.abandoned).map(|f| &mut f.hooks)
    }

    /// Gives the frame of a handle that may run statements: no frame inside it is open.
    pub(super) fn frame(&mut self, id: FrameId) -> Result<&mut Frame, OutboxError> {
        let at = self.find(id)?;
        if self.frames.get(at + 1).is_some_and(|inner| !inner.abandoned) {
            return Err(OutboxError::NestedOpen);
        }
        Ok(&mut self.frames[at])
    }

    /// Notes that a function which had joined a frame failed.
    pub(super) fn fail(&mut self, id: FrameId, function: &'static str) {
        if let Some(frame) = self.frames.iter_mut().find(|f| f.id == id) {
            frame.failed.get_or_insert(function);
        }
    }

    /// Opens a frame inside the given one.
    pub(super) fn open(&mut self, outer: FrameId) -> Result<FrameId, OutboxError> {
        let correlation = self.frame(outer)?.correlation.clone();
        let id = self.next;
        self.next += 1;
        self.frames.push(Frame { id, correlation, ..Frame::default() });
        Ok(id)
    }

    /// Removes a frame whose savepoint could not be set.
    pub(super) fn never_opened(&mut self, id: FrameId) {
        self.frames.retain(|f| f.id != id);
    }

    /// Abandons a frame and all inside it. Gives their hooks and notifications, for the phases
    /// after a rollback.
    pub(super) fn abandon(&mut self, id: FrameId) -> EndedFrames {
        let mut ended = EndedFrames::default();
        let Some(at) = self.frames.iter().position(|f| f.id == id) else { return ended };
        for frame in &mut self.frames[at..] {
            frame.abandoned = true;
            ended.add(std::mem::take(&mut frame.hooks), std::mem::take(&mut frame.notifications));
            frame.events.clear();
            frame.effects = Effects::default();
        }
        if at == 0 {
            self.terminal.get_or_insert(Terminal::Ended);
        }
        if self.is_trial() { EndedFrames::default() } else { ended }
    }

    /// Gives the outermost savepoint that must be undone before anything else.
    pub(super) fn to_undo(&self) -> Option<FrameId> {
        if self.terminal.is_some() {
            return None;
        }
        self.frames.iter().skip(1).find(|f| f.abandoned).map(|f| f.id)
    }

    /// Notes that a savepoint, and all inside it, was undone.
    pub(super) fn undone(&mut self, id: FrameId) {
        if let Some(at) = self.frames.iter().position(|f| f.id == id) {
            self.frames.truncate(at);
        }
        // The failed statements were undone with it.
        (self.commit_unverified, self.conflict, self.disturbance) = (false, false, None);
    }

    /// Merges a committed savepoint into the frame around it.
    pub(super) fn released(&mut self, id: FrameId) {
        let Some(at) = self.frames.iter().position(|f| f.id == id).filter(|at| *at > 0) else {
            return;
        };
        for inner in self.frames.split_off(at) {
            let outer = &mut self.frames[at - 1];
            outer.events.extend(inner.events);
            outer.notifications.extend(inner.notifications);
            outer.hooks.absorb(inner.hooks);
            outer.effects.absorb(inner.effects);
        }
    }

    /// Ends the bookkeeping. Gives all hooks and notifications, for the phases after the end.
    pub(super) fn end(&mut self) -> EndedFrames {
        let mut ended = EndedFrames::default();
        for frame in std::mem::take(&mut self.frames) {
            ended.add(frame.hooks, frame.notifications);
        }
        self.terminal.get_or_insert(Terminal::Ended);
        if self.is_trial() { EndedFrames::default() } else { ended }
    }
}

impl Frame {
    /// Takes the events that are not written yet, in the order in which they were emitted.
    pub(super) fn take_events(&mut self) -> Vec<Pending> {
        let mut events = std::mem::take(&mut self.events);
        events.sort_by_key(|(place, _)| *place);
        events.into_iter().map(|(_, event)| event).collect()
    }

    /// Gives the notifications from a place on, in order, and the place behind them.
    pub(super) fn notifications_from(&mut self, place: u64) -> (Vec<SealedNotification>, u64) {
        self.notifications.sort_by_key(|(place, _)| *place);
        let next = self.notifications.last().map_or(place, |(last, _)| place.max(last + 1));
        let notifications = self
            .notifications
            .iter()
            .filter(|(at, _)| *at >= place)
            .map(|(at, notification)| (self.sealed_correlation(*at), notification.clone()))
            .collect();
        (notifications, next)
    }

    /// Keeps the present correlation for the hooks and notifications of the commit so far.
    fn seal(&mut self, emitted: u64) {
        let Some(correlation) = &self.correlation else { return };
        self.hooks.seal(correlation);
        if self.notifications.iter().any(|(place, _)| !self.is_sealed(*place)) {
            self.sealed.push((emitted, correlation.clone()));
        }
    }

    fn is_sealed(&self, place: u64) -> bool {
        self.sealed.last().is_some_and(|(end, _)| place < *end)
    }

    fn sealed_correlation(&self, place: u64) -> Option<CorrelationContext> {
        let sealed = self.sealed.iter().find(|(end, _)| place < *end);
        sealed.map(|(_, correlation)| correlation.clone())
    }

    /// Tells which joined function failed.
    pub(super) fn check(&self) -> Result<(), OutboxError> {
        self.failed.map_or(Ok(()), |function| Err(OutboxError::RollbackOnly { function }))
    }

    /// Gives the flag that tells whether the driver's transaction was exposed in it.
    pub(super) fn driver_exposed(&mut self) -> &mut bool {
        &mut self.driver_exposed
    }
}

/// Hooks and notifications of frames that have ended.
#[derive(Default)]
pub(super) struct EndedFrames {
    hooks: Hooks,
    notifications: Vec<(u64, QueuedNotification)>,
}

impl EndedFrames {
    fn add(&mut self, hooks: Hooks, notifications: Vec<(u64, QueuedNotification)>) {
        self.hooks.absorb(hooks);
        self.notifications.extend(notifications);
    }

    /// Runs the hooks and gives the notifications.
    pub(super) fn run_hooks(mut self, outcome: super::Outcome) -> Vec<QueuedNotification> {
        self.hooks.run(outcome);
        self.notifications.sort_by_key(|(place, _)| *place);
        self.notifications.into_iter().map(|(_, notification)| notification).collect()
    }
}
